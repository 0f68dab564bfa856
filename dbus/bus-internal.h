/* bus-internal — shared by the files of the bus. Not for others. */
#pragma once

#include <stdbool.h>
#include <systemd/sd-bus.h>

#include "daemon/manager.h"
#include "dbus/bus.h"

#define BUS_NAME              "org.diffused.Diffused1"
#define BUS_PATH              "/org/diffused/Diffused1"
#define BUS_JOB_PREFIX        BUS_PATH "/job"
#define BUS_MANAGER_INTERFACE "org.diffused.Diffused1.Manager"
#define BUS_JOB_INTERFACE     "org.diffused.Diffused1.Job"
#define BUS_ERROR_PREFIX      "org.diffused.Diffused1.Error."
#define BUS_JOB_PATH_SIZE     64

#define BUS_DRIVER "org.freedesktop.DBus"

struct watcher;
struct decode;
struct held;
struct authorization;
struct loan;

/* What one user, however many connections he has, may still use. Times: CLOCK_MONOTONIC. */
struct bus_account {
    struct bus_account *next;
    uint32_t uid;
    unsigned peers;       /* connections known to be his */
    unsigned inputs;      /* pictures of his on their way to the disk */
    double calls;         /* he may make at once; see bus-gate.c */
    uint64_t filled_usec; /* when `calls` was reckoned */
    bool is_member;       /* of the group member_gid, as the user database said; bus-access.c */
    gid_t member_gid;
    uint64_t member_until_usec;
};

/* The access group as the user database said. */
struct bus_group {
    char name[256];
    gid_t gid;
    bool exists;
    uint64_t until_usec;
};

/* A connection that has called us, by its unique name. */
struct bus_peer {
    struct bus_peer *next;
    char *name;
    sd_bus_slot *asking;         /* the bus daemon is being asked who it is */
    struct bus_account *account; /* NULL until the bus daemon has said so */
    uint32_t *groups;            /* as the bus daemon says; NULL where it does not */
    size_t group_count;
    struct held *held; /* calls that wait for the account, in their order */
    unsigned held_count;
    unsigned early; /* calls answered before there was an account to charge */
};

/* What the handlers of a job's object get. To be read before anything is sent: sd-bus looks for
 * objects then, too. */
struct bus_found {
    struct bus *bus;
    struct job *job;
};

struct bus {
    struct bus_found found;
    sd_bus *connection;
    sd_event *event;         /* not owned: outlives us */
    struct manager *manager; /* not owned: outlives us */
    struct manager_observer observer;
    struct bus_peer *peers; /* list, the one heard last in front */
    struct bus_account *accounts;
    struct bus_group access_group;
    unsigned peer_count, held_count;
    struct watcher *watchers;             /* list; see bus-watch.c */
    struct decode *decodes;               /* GetResult calls that wait; see bus-result.c */
    struct authorization *authorizations; /* calls that wait for polkit; see bus-authorize.c */
    struct loan *loans;                   /* pictures others hold; see bus-lend.c */
    sd_event_source *sweep;
    sd_bus_slot *ping; /* the bus daemon is being asked whether it listens */
    uint64_t ponged_usec;
    bool is_stalled; /* it will not take what waits */
};

extern const sd_bus_vtable bus_manager_vtable[], bus_job_vtable[];

/* --- bus-errors.c: errno and fault to the error a caller reads. Returns a negative errno, as
 * sd-bus wants from handlers.  */
int bus_error_set(sd_bus_error *error, int err, const struct fault *f);
int bus_error_setf(sd_bus_error *error, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Answers a call that was taken on for later. */
void bus_reply_error(sd_bus_message *call, int err, const struct fault *f);
/* manager_done_t: answers the call that is its userdata, and drops its reference. */
void bus_on_done(int r, const struct fault *f, void *userdata);
/* Full name of an error, e.g. for the property Error; "" for 0. */
const char *bus_error_name(int err, char *buffer, size_t size);

/* --- bus-peer.c: who is behind a unique name. Nothing here waits for the bus daemon. ---------- */
int bus_peers_open(struct bus *bus);
void bus_peers_done(struct bus *bus);
/* The sender's entry; a new one is asked about at once. NULL: too many, or out of memory. */
struct bus_peer *bus_peer_of(struct bus *bus, sd_bus_message *message);
/* NULL when it never called or has left the bus. */
struct bus_peer *bus_peer_find(struct bus *bus, const char *name);

/* A user's account; NULL: none. */
struct bus_account *bus_account_find(struct bus *bus, uint32_t uid);

/* --- bus-gate.c: what comes in is let through, held back or refused. -------------------------- */
int bus_gate_open(struct bus *bus);
void bus_gate_close(struct bus *bus);
/* The peer's account is known: its held calls are carried out, in their order. */
void bus_gate_release(struct bus *bus, struct bus_peer *peer);
/* It will never be known: they are refused; with `is_gone` they are just dropped. */
void bus_gate_drop(struct bus *bus, struct bus_peer *peer, bool is_gone);
/* More waits to be written to the bus daemon than it takes: what nobody needs is not sent. */
bool bus_is_congested(const struct bus *bus);
/* May the user make `calls` more calls now? Fills up first; takes them when he may. */
bool bus_take_calls(struct bus_account *account, uint64_t now_usec, double per_second, double burst,
                    double calls);
/* Answers a call with what a handler returned. */
void bus_reply_failure(sd_bus_message *call, int r, sd_bus_error *error);

/* --- bus-access.c: who may. All: 0 or a negative errno with error set; no credentials mean no.  */
int bus_get_uid(struct bus *bus, sd_bus_message *message, uint32_t *ret_uid, sd_bus_error *error);
int bus_check_submit(struct bus *bus, sd_bus_message *message, uint32_t *ret_uid,
                     sd_bus_error *error);
/* Owner or root. */
int bus_check_owner(struct bus *bus, sd_bus_message *message, const struct job *job,
                    sd_bus_error *error);

/* --- bus-authorize.c: verbs of the machine's keeper: root, or whom polkit lets. --------------- */
typedef int bus_authorized_t(struct bus *bus, sd_bus_message *call, sd_bus_error *error);
/* Calls `then` when the caller may: before it returns for root, else when polkit has answered; it
 * answers the call as a handler does. Who may not gets AccessDenied. To be returned by a
 * handler. */
int bus_authorize(struct bus *bus, sd_bus_message *call, const char *action, bus_authorized_t *then,
                  sd_bus_error *error);
void bus_authorizations_gone(struct bus *bus, const char *name);
void bus_authorizations_done(struct bus *bus);

/* --- bus-log.c: org.freedesktop.LogControl1. -------------------------------------------------- */
#define BUS_LOG_PATH      "/org/freedesktop/LogControl1"
#define BUS_LOG_INTERFACE "org.freedesktop.LogControl1"
extern const sd_bus_vtable bus_log_vtable[];
/* Carries out a call of Properties.Set; only LogLevel can be set. */
int bus_log_set(struct bus *bus, sd_bus_message *call, sd_bus_error *error);

/* --- bus-lend.c: how many pictures others hold open. ------------------------------------------ */
/* A descriptor of the memfd to give away, read-only; it counts against the user until nobody has it
 * open or mapped any more. Negative errno with error set: -EDQUOT. */
int bus_lend(struct bus *bus, uint32_t uid, int memfd, sd_bus_error *error);
/* Could one more be lent to the user? 0, or -EDQUOT with error set. */
int bus_check_loans(struct bus *bus, uint32_t uid, sd_bus_error *error);
void bus_loans_done(struct bus *bus);

/* --- bus-job.c -------------------------------------------------------------------------------- */
bool bus_job_is_private(const char *property);
/* Carries out a call of Properties.Get of a private property. */
int bus_job_get(struct bus *bus, sd_bus_message *call, sd_bus_error *error);
void bus_job_path(const struct job *job, char ret_path[BUS_JOB_PATH_SIZE]);
/* -ENOENT and NotFound when the path is no job's. */
int bus_find_job(struct bus *bus, const char *path, struct job **ret_job, sd_bus_error *error);
int bus_on_find_job(sd_bus *connection, const char *path, const char *interface, void *userdata,
                    void **ret_found, sd_bus_error *error);
int bus_on_enumerate_jobs(sd_bus *connection, const char *prefix, void *userdata, char ***ret_nodes,
                          sd_bus_error *error);
void bus_send_step(struct bus *bus, const struct job *job, double timestep);
void bus_send_preview(struct bus *bus, const struct job *job);
void bus_send_finished(struct bus *bus, const struct job *job);

/* --- bus-manager.c ---------------------------------------------------------------------------- */
void bus_manager_changed(struct bus *bus, unsigned changes);

/* --- bus-options.c: a{sv} in and out. --------------------------------------------------------- */
/* inputs: JOB_INPUT_COUNT of them; the pictures that came along, as descriptors that are the
 * caller's (of -1 there is none), also on failure. */
int bus_read_options(sd_bus_message *message, struct request *request, struct job_input *inputs,
                     sd_bus_error *error);
int bus_append_options(sd_bus_message *reply, const struct request *request);
int bus_append_option_table(sd_bus_message *reply, const struct request *defaults);

/* A key of an a{sv} that must have one of these names and types; NULL name ends. */
struct bus_key {
    const char *name;
    char type;   /* 's' or 'u' */
    void *value; /* const char ** or uint32_t * */
};
int bus_read_keys(sd_bus_message *message, const struct bus_key *keys, sd_bus_error *error);

/* --- bus-input.c: pictures that come in as descriptors.
 * ---------------------------------------- */
/* Takes a copy of a message's descriptor. -EINVAL: no regular file or memfd that can be read;
 * -EFBIG: too large; -EMFILE. f names `what`. */
int bus_take_input(int fd, const char *what, struct job_input *ret_input, struct fault *f);
void bus_drop_inputs(struct job_input *inputs);

/* --- bus-result.c: GetResult, GetPreview.
 * ------------------------------------------------------ */
int bus_method_get_result(sd_bus_message *message, void *userdata, sd_bus_error *error);
int bus_method_get_preview(sd_bus_message *message, void *userdata, sd_bus_error *error);
void bus_results_gone(struct bus *bus, const char *name);
void bus_results_done(struct bus *bus);

/* --- bus-watch.c: who gets a job's unicast signals. ------------------------------------------- */
int bus_watch(struct bus *bus, sd_bus_message *message, uint64_t job);
/* The same for the sender of the job's Submit: a job with cancel_on_disconnect ends when the last
 * of those has left, which may have been before this. */
int bus_watch_own(struct bus *bus, sd_bus_message *message, uint64_t job);
void bus_watcher_gone(struct bus *bus, const char *name);
void bus_unwatch(struct bus *bus, const char *name, uint64_t job);
void bus_forget_job(struct bus *bus, uint64_t job);
void bus_watchers_done(struct bus *bus);
/* Calls back with every unique name that watches the job. */
void bus_each_watcher(struct bus *bus, uint64_t job,
                      void (*on_name)(const char *name, void *userdata), void *userdata);
