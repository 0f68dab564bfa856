/* doctor: what belongs to the service: model, bus, daemon, who may use it. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dbus/diffusectl-doctor.h"
#include "dbus/diffusectl-model.h"
#include "vk/base/cleanup.h"
#include "vk/base/json.h"

#define WORK_BYTES   (600ull << 20) /* besides weights, at 512x512: activations and staging */
#define PROBLEMS_MAX 8              /* shown of one check */

/* --- model ------------------------------------------------------------------------------------ */

static void check_memory(struct doctor *d, const char *text)
{
    _cleanup_(json_freep) json_t *root = NULL;

    if (json_parse(text, strlen(text), &root, NULL) < 0)
        return;
    uint64_t weights = (uint64_t)json_integer_value(json_object_get(root, "weights"));
    if (d->memory && d->memory < weights)
        doctor_say(d, DOCTOR_FAIL, "a smaller model, or a device with more memory",
                   "weights take %" PRIu64 " MiB, the device has %" PRIu64 " MiB", weights >> 20,
                   d->memory >> 20);
    else if (d->memory && d->memory < weights + WORK_BYTES)
        doctor_say(d, DOCTOR_WARN, "smaller pictures",
                   "weights take %" PRIu64 " of the device's %" PRIu64
                   " MiB: not enough is left for 512x512",
                   weights >> 20, d->memory >> 20);
    else
        doctor_say(d, DOCTOR_OK, NULL, "%s, %" PRIu64 " MiB of weights", d->model, weights >> 20);
}

void doctor_model(struct doctor *d)
{
    const char *arguments[] = {"diffused-worker", "--check-model", "--model",
                               d->model,          "--json",        NULL};
    const struct ctl_program program = {.name = "diffused-worker",
                                        .arguments = arguments,
                                        .directory = -1,
                                        .uid = d->is_devel ? 0 : d->uid,
                                        .gid = d->gid};
    _cleanup_(ctl_output_done) struct ctl_output o = {0};

    if (!d->model[0]) {
        doctor_say(d, d->config.text ? DOCTOR_FAIL : DOCTOR_SKIP,
                   d->config.text ? "diffusectl model install DIR --use" : NULL,
                   "the configuration names none");
        return;
    }
    if (ctl_run(&program, &o) != 0)
        doctor_say(d, DOCTOR_FAIL, "install the package again", "diffused-worker is missing");
    else if (o.status != 0)
        doctor_say(d, DOCTOR_FAIL, "install it again: diffusectl model install DIR --replace",
                   "%s: %s", d->model, ctl_first_line(o.err));
    else
        check_memory(d, o.out);
}

/* Owners that the installed service takes weights from. */
static void check_owner(struct doctor *d)
{
    struct stat st;

    if (stat(d->model, &st) < 0 || d->is_devel)
        return;
    if (st.st_uid != 0 && st.st_uid != d->uid)
        doctor_say(d, DOCTOR_FAIL, "chown -R root:root the model",
                   "%s: belongs to uid %u: "
                   "neither root nor diffused",
                   d->model, (unsigned)st.st_uid);
}

void doctor_hashes(struct doctor *d)
{
    _cleanup_(model_report_done) struct model_report report = {0};
    _cleanup_(closep) int fd = -1;
    struct fault f = {0};

    if (!d->model[0] || (fd = open(d->model, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        doctor_say(d, DOCTOR_SKIP, NULL, "no model to look at");
        return;
    }
    check_owner(d);
    if (model_examine(fd, d->quick ? MODEL_EXAMINE_NAMES : MODEL_EXAMINE_HASHES, &report, &f) < 0) {
        doctor_say(d, f.err == -EACCES ? DOCTOR_SKIP : DOCTOR_FAIL,
                   f.err == -EACCES ? "run doctor as root" : "install the model again", "%s",
                   f.text);
        return;
    }
    for (size_t i = 0; i < report.problems.count && i < PROBLEMS_MAX; i++)
        doctor_say(
            d, strstr(report.problems.items[i], "mode ") && d->is_devel ? DOCTOR_WARN : DOCTOR_FAIL,
            "chmod go-w, or install the model again: diffusectl model install --replace", "%s",
            report.problems.items[i]);
    if (report.problems.count == 0 && !report.has_sums)
        doctor_say(d, DOCTOR_SKIP, NULL, "the model has no " MODEL_SUMS " to compare with");
    else if (report.problems.count == 0)
        doctor_say(d, DOCTOR_OK, NULL, "%u files %s", report.files,
                   d->quick ? "are listed, their content was not read (--quick)"
                            : "are as " MODEL_SUMS " says");
}

/* --- bus -------------------------------------------------------------------------------------- */

static void check_policy(struct doctor *d)
{
    static const char *const places[] = {"/usr/share/dbus-1/system.d/" CTL_BUS_NAME ".conf",
                                         "/etc/dbus-1/system.d/" CTL_BUS_NAME ".conf",
                                         "/usr/local/share/dbus-1/system.d/" CTL_BUS_NAME ".conf"};

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (access(places[i], R_OK) == 0)
            return;
    }
    doctor_say(d, DOCTOR_FAIL, "install the package again",
               "%s is missing: the bus lets nobody own the name", places[0]);
}

void doctor_bus(struct doctor *d)
{
    bool is_private = getenv("DBUS_SYSTEM_BUS_ADDRESS") != NULL;

    if (!d->is_devel && !is_private)
        check_policy(d);
    if (!d->bus) {
        doctor_say(d, DOCTOR_FAIL,
                   is_private ? "look at DBUS_SYSTEM_BUS_ADDRESS" : "systemctl start dbus",
                   "the %s cannot be reached", is_private ? "private bus" : "system bus");
        return;
    }
    int r = sd_bus_get_name_creds(d->bus, CTL_BUS_NAME, 0, NULL);
    if (r < 0)
        doctor_say(d, DOCTOR_FAIL,
                   d->is_devel ? "diffused --devel DIR" : "systemctl start diffused",
                   "nobody owns " CTL_BUS_NAME ": the daemon is not running");
    else
        doctor_say(d, DOCTOR_OK, NULL, CTL_BUS_NAME " is owned");
}

/* A text property of the manager, or "". */
static void manager_text(struct doctor *d, const char *property, char *ret_text, size_t size)
{
    char *text = NULL;
    int r = sd_bus_get_property_string(d->bus, CTL_BUS_NAME, CTL_ROOT, CTL_MANAGER, property, NULL,
                                       &text);

    (void)snprintf(ret_text, size, "%s", r >= 0 ? text : "");
    free(text);
}

void doctor_daemon(struct doctor *d)
{
    char state[32] = "", reason[512], degraded[512];

    if (d->bus && sd_bus_get_name_creds(d->bus, CTL_BUS_NAME, 0, NULL) >= 0)
        manager_text(d, "State", state, sizeof state);
    if (!state[0]) {
        doctor_say(d, DOCTOR_SKIP, NULL, "no daemon to ask");
        return;
    }
    manager_text(d, "StateReason", reason, sizeof reason);
    manager_text(d, "DegradedReason", degraded, sizeof degraded);
    if (strcmp(state, "failed") == 0)
        doctor_say(d, DOCTOR_FAIL, "mend what it says; then diffusectl reload", "failed: %s",
                   reason);
    else if (strcmp(state, "paused") == 0)
        doctor_say(d, DOCTOR_WARN, "diffusectl resume", "paused%s%s", *reason ? ": " : "", reason);
    else
        doctor_say(d, DOCTOR_OK, NULL, "%s%s%s", state, *reason ? ": " : "", reason);
    if (*degraded)
        doctor_say(d, DOCTOR_WARN, "mend what it says", "degraded: %s", degraded);
}

/* --- who may use it --------------------------------------------------------------------------- */

void doctor_access(struct doctor *d)
{
    char name[64], mend[160];
    gid_t mine[256];

    if (geteuid() == 0 || d->is_devel) {
        doctor_say(d, DOCTOR_OK, NULL, "you are %s: you may submit",
                   geteuid() == 0 ? "root" : "the daemon's user");
        return;
    }
    if (!ctl_config_get(&d->config, "access", "group", name, sizeof name))
        (void)snprintf(name, sizeof name, "diffused");
    const struct group *group = getgrnam(name);
    if (!group) {
        doctor_say(d, DOCTOR_WARN, "systemd-sysusers, or another [access] group",
                   "there is no group %s: only root may submit", name);
        return;
    }
    gid_t gid = group->gr_gid;
    int n = getgroups((int)ARRAY_SIZE(mine), mine);
    bool is_member = getegid() == gid;
    for (int i = 0; i < n; i++)
        is_member |= mine[i] == gid;
    const struct passwd *user = getpwuid(geteuid());
    (void)snprintf(mend, sizeof mend, "adduser %.64s %.64s, and log in again",
                   user ? user->pw_name : "USER", name);
    if (is_member)
        doctor_say(d, DOCTOR_OK, NULL, "you are in group %s: you may submit", name);
    else
        doctor_say(d, DOCTOR_WARN, mend, "you are not in group %s: you may not submit", name);
}
