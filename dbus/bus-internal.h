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

struct watcher;
struct decode;

struct bus {
    sd_bus *connection;
    struct manager *manager; /* not owned: outlives us */
    struct manager_observer observer;
    const char *drop;
    struct watcher *watchers; /* list; see bus-watch.c */
    struct decode *decodes;   /* GetResult calls that wait; see bus-result.c */
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

/* --- bus-access.c: who may. All: 0 or a negative errno with error set; no credentials mean no.  */
int bus_get_uid(sd_bus_message *message, uint32_t *ret_uid, sd_bus_error *error);
int bus_check_submit(struct bus *bus, sd_bus_message *message, uint32_t *ret_uid,
                     sd_bus_error *error);
/* Owner or root. */
int bus_check_owner(sd_bus_message *message, const struct job *job, sd_bus_error *error);

/* --- bus-job.c -------------------------------------------------------------------------------- */
void bus_job_path(const struct job *job, char ret_path[BUS_JOB_PATH_SIZE]);
/* -ENOENT and NotFound when the path is no job's. */
int bus_find_job(struct bus *bus, const char *path, struct job **ret_job, sd_bus_error *error);
int bus_on_find_job(sd_bus *connection, const char *path, const char *interface, void *userdata,
                    void **ret_found, sd_bus_error *error);
int bus_on_enumerate_jobs(sd_bus *connection, const char *prefix, void *userdata, char ***ret_nodes,
                          sd_bus_error *error);
void bus_send_step(struct bus *bus, const struct job *job, double timestep);
void bus_send_finished(struct bus *bus, const struct job *job);
/* The bus a handler with a job as userdata belongs to. */
struct bus *bus_of(sd_bus *connection);

/* --- bus-manager.c ---------------------------------------------------------------------------- */
void bus_manager_changed(struct bus *bus, unsigned changes);

/* --- bus-options.c: a{sv} in and out. --------------------------------------------------------- */
int bus_read_options(sd_bus_message *message, struct request *request, sd_bus_error *error);
int bus_append_options(sd_bus_message *reply, const struct request *request);
int bus_append_option_table(sd_bus_message *reply, const struct request *defaults);

/* A key of an a{sv} that must have one of these names and types; NULL name ends. */
struct bus_key {
    const char *name;
    char type;   /* 's' or 'u' */
    void *value; /* const char ** or uint32_t * */
};
int bus_read_keys(sd_bus_message *message, const struct bus_key *keys, sd_bus_error *error);

/* --- bus-result.c: GetResult. ----------------------------------------------------------------- */
int bus_method_get_result(sd_bus_message *message, void *userdata, sd_bus_error *error);
void bus_results_done(struct bus *bus);

/* --- bus-watch.c: who gets a job's unicast signals. ------------------------------------------- */
int bus_watch(struct bus *bus, sd_bus_message *message, uint64_t job);
void bus_unwatch(struct bus *bus, const char *name, uint64_t job);
void bus_forget_job(struct bus *bus, uint64_t job);
void bus_watchers_done(struct bus *bus);
/* Calls back with every unique name that watches the job. */
void bus_each_watcher(struct bus *bus, uint64_t job,
                      void (*on_name)(const char *name, void *userdata), void *userdata);
