/* Who may pause, resume and reload: root, and whom polkit lets
 * (etc/org.diffused.Diffused1.policy names the actions). The loop goes on while polkit asks its
 * user; without polkit only root may. The subject is the caller's unique name: a process id
 * could be another's by the time polkit looks. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dbus/bus-internal.h"

#define POLKIT           "org.freedesktop.PolicyKit1"
#define PENDING_MAX      16u
#define PENDING_PEER_MAX 2u
#define ASK_USEC         10000000u  /* without a human */
#define ASK_HUMAN_USEC   120000000u /* with one who types a password */
#define ALLOW_HUMAN      1u         /* CheckAuthorizationFlags */

/* A call that waits for polkit. */
struct authorization {
    struct authorization *next;
    struct bus *bus;
    sd_bus_message *call;
    sd_bus_slot *slot;
    bus_authorized_t *then;
};

static sd_bus_message *message_free(sd_bus_message *message)
{
    return sd_bus_message_unref(message);
}
DEFINE_FREEP(sd_bus_message *, message_free)

static struct authorization *authorization_free(struct authorization *a)
{
    if (!a)
        return NULL;
    struct authorization **at = &a->bus->authorizations;
    while (*at && *at != a)
        at = &(*at)->next;
    if (*at)
        *at = a->next;
    sd_bus_slot_unref(a->slot);
    sd_bus_message_unref(a->call);
    free(a);
    return NULL;
}
DEFINE_FREEP(struct authorization *, authorization_free)

/* 0, or -EACCES with the reason. */
static int read_verdict(sd_bus_message *reply, sd_bus_error *error)
{
    int is_authorized = 0, is_challenge = 0;

    if (sd_bus_message_is_method_error(reply, NULL))
        return bus_error_setf(error, -EACCES, "only root may: polkit does not answer (%.128s)",
                              sd_bus_message_get_error(reply)->name);
    int r = sd_bus_message_enter_container(reply, 'r', "bba{ss}");
    if (r > 0)
        r = sd_bus_message_read(reply, "bb", &is_authorized, &is_challenge);
    if (r > 0 && is_authorized)
        return 0;
    return bus_error_setf(error, -EACCES, "polkit does not allow it%s",
                          r > 0 && is_challenge ? ": it would have to ask, and was not let" : "");
}

static int on_verdict(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
    _cleanup_(authorization_freep) struct authorization *a = userdata;
    sd_bus_error error = SD_BUS_ERROR_NULL;

    (void)unused;
    int r = read_verdict(reply, &error);
    if (r >= 0)
        r = a->then(a->bus, a->call, &error);
    if (r < 0 || sd_bus_error_is_set(&error))
        bus_reply_failure(a->call, r, &error);
    return 0;
}

static int new_question(const struct authorization *a, const char *action, uint32_t flags,
                        sd_bus_message **ret_question)
{
    int r = sd_bus_message_new_method_call(a->bus->connection, ret_question, POLKIT,
                                           "/org/freedesktop/PolicyKit1/Authority",
                                           POLKIT ".Authority", "CheckAuthorization");
    return r < 0 ? r
                 : sd_bus_message_append(*ret_question, "(sa{sv})sa{ss}us", "system-bus-name", 1,
                                         "name", "s", sd_bus_message_get_sender(a->call), action, 0,
                                         flags, "");
}

static int check_pending(const struct bus *bus, const char *name, sd_bus_error *error)
{
    unsigned his = 0, all = 0;

    for (const struct authorization *a = bus->authorizations; a; a = a->next) {
        his += strcmp(sd_bus_message_get_sender(a->call), name) == 0;
        all++;
    }
    if (his < PENDING_PEER_MAX && all < PENDING_MAX)
        return 0;
    return bus_error_setf(error, -EDQUOT, "%u calls wait for polkit already", all);
}

int bus_authorize(struct bus *bus, sd_bus_message *call, const char *action, bus_authorized_t *then,
                  sd_bus_error *error)
{
    _cleanup_(message_freep) sd_bus_message *question = NULL;
    bool may_ask = sd_bus_message_get_allow_interactive_authorization(call) > 0;
    uint32_t uid = UINT32_MAX;

    int r = bus_get_uid(bus, call, &uid, error);
    if (r < 0)
        return r;
    if (uid == 0)
        return then(bus, call, error);
    r = check_pending(bus, sd_bus_message_get_sender(call), error);
    if (r < 0)
        return r;
    _cleanup_(authorization_freep) struct authorization *a = calloc(1, sizeof *a);
    if (!a)
        return -ENOMEM;
    a->bus = bus;
    a->call = sd_bus_message_ref(call);
    a->then = then;
    r = new_question(a, action, may_ask ? ALLOW_HUMAN : 0, &question);
    if (r >= 0)
        r = sd_bus_call_async(bus->connection, &a->slot, question, on_verdict, a,
                              may_ask ? ASK_HUMAN_USEC : ASK_USEC);
    if (r < 0)
        return r;
    a->next = bus->authorizations;
    bus->authorizations = TAKE_PTR(a);
    return 1; /* answered later */
}

void bus_authorizations_gone(struct bus *bus, const char *name)
{
    for (struct authorization *a = bus->authorizations, *next; a; a = next) {
        next = a->next;
        if (strcmp(sd_bus_message_get_sender(a->call), name) == 0)
            authorization_free(a);
    }
}

void bus_authorizations_done(struct bus *bus)
{
    while (bus->authorizations)
        authorization_free(bus->authorizations);
}
