/* doctor: what belongs to the system: configuration, user, device, folders, unit, clock. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "dbus/diffusectl-doctor.h"
#include "vk/base/cleanup.h"
#include "vk/base/json.h"

void doctor_configuration(struct doctor *d)
{
    static const char mend[] = "edit that line; see diffused.conf(5)";
    _cleanup_(ctl_output_done) struct ctl_output o = {0};
    char path[CTL_PATH_SIZE];

    ctl_config_path(&d->config, path);
    if (ctl_config_check(&d->config, &o) != 0 || ctl_config_read(&d->config) != 0) {
        doctor_say(d, DOCTOR_FAIL, "install the package again", "the program diffused is missing");
        return;
    }
    bool is_good = o.status == 0 && d->config.text;
    for (char *line = o.err, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        doctor_say(d, is_good ? DOCTOR_WARN : DOCTOR_FAIL, mend, "%s", ctl_first_line(line));
    }
    if (is_good && !*o.err)
        doctor_say(d, DOCTOR_OK, NULL, "%s is good", path);
    else if (!is_good && !*o.err)
        doctor_say(d, DOCTOR_FAIL, mend, "%s", d->config.complaint);
    if (!ctl_config_get(&d->config, "model", "path", d->model, sizeof d->model))
        d->model[0] = '\0';
}

/* --- user ------------------------------------------------------------------------------------- */

void doctor_user(struct doctor *d)
{
    static const char *const groups[] = {"render", "video"};

    if (d->is_devel) {
        doctor_say(d, DOCTOR_SKIP, NULL, "not asked for: a --devel run is its user's own");
        return;
    }
    if (!d->uid) {
        doctor_say(d, DOCTOR_FAIL, "systemd-sysusers, or install the package again",
                   "there is no user diffused");
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        if (!getgrnam(groups[i]))
            doctor_say(d, DOCTOR_WARN, "systemd-sysusers, or install the package again",
                       "there is no group %s: the unit cannot join it", groups[i]);
    }
    doctor_say(d, DOCTOR_OK, NULL, "user diffused, uid %u", (unsigned)d->uid);
}

/* --- device ----------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

/* Whether the unit's groups open the node: it joins render and video. */
static void check_node(struct doctor *d, const char *node)
{
    struct stat st;

    if (stat(node, &st) < 0) {
        doctor_say(d, DOCTOR_WARN, "look at the kernel's driver: dmesg", "%s: %s", node,
                   strerror(errno));
        return;
    }
    const struct group *group = getgrgid(st.st_gid);
    const char *name = group ? group->gr_name : "?";
    bool is_open = (st.st_mode & 0006) == 0006 ||
                   ((st.st_mode & 0060) == 0060 &&
                    (strcmp(name, "render") == 0 || strcmp(name, "video") == 0));
    if (!is_open && !d->is_devel)
        doctor_say(d, DOCTOR_FAIL, "a udev rule with GROUP=\"render\", MODE=\"0660\"",
                   "%s: mode %04o, group %s: not open to the daemon", node,
                   (unsigned)st.st_mode & 07777, name);
    else if (access(node, R_OK | W_OK) < 0)
        doctor_say(d, DOCTOR_SKIP, NULL, "%s: not open to you, which does not keep the daemon out",
                   node);
}

static void judge_device(struct doctor *d, const json_t *device)
{
    char allow[16] = "auto";
    bool is_cpu = strcmp(text_of(device, "type"), "cpu") == 0;
    const char *node = text_of(device, "node");

    d->memory = (uint64_t)json_integer_value(json_object_get(device, "memory"));
    (void)ctl_config_get(&d->config, "device", "allow_cpu", allow, sizeof allow);
    if (is_cpu && strcmp(allow, "no") == 0)
        doctor_say(d, DOCTOR_FAIL, "install the GPU's Vulkan driver, or set [device] allow_cpu",
                   "only a software device: %s, and allow_cpu is no", text_of(device, "name"));
    else if (is_cpu)
        doctor_say(d, DOCTOR_WARN,
                   "install the GPU's Vulkan driver, if there is a GPU (mesa-vulkan-drivers)",
                   "%s: a software device: pictures take minutes", text_of(device, "name"));
    else
        doctor_say(d, DOCTOR_OK, NULL, "%s, %s, %.1f GiB", text_of(device, "name"),
                   text_of(device, "driver"), (double)d->memory / (1 << 30));
    if (*node)
        check_node(d, node);
}

void doctor_device(struct doctor *d)
{
    static const char *const arguments[] = {"diffused-worker", "--probe", "--json", NULL};
    const struct ctl_program program = {
        .name = "diffused-worker", .arguments = arguments, .directory = -1};
    _cleanup_(ctl_output_done) struct ctl_output o = {0};
    _cleanup_(json_freep) json_t *root = NULL;
    struct fault f = {0};

    if (ctl_run(&program, &o) != 0 || o.status != 0) {
        doctor_say(d, DOCTOR_FAIL, "look at what the Vulkan driver says: diffusectl devices",
                   "the devices cannot be listed: %s",
                   o.status >= 1000 ? "the driver crashed"
                   : o.err          ? ctl_first_line(o.err)
                                    : "the program diffused-worker is missing");
        return;
    }
    if (json_parse(o.out, strlen(o.out), &root, &f) < 0) {
        doctor_say(d, DOCTOR_FAIL, NULL, "diffused-worker --probe: %s", f.text);
        return;
    }
    const json_t *device, *chosen = NULL, *list = json_object_get(root, "devices");
    size_t i;
    json_array_foreach(list, i, device)
    {
        if (json_is_true(json_object_get(device, "chosen")))
            chosen = device;
    }
    if (chosen)
        judge_device(d, chosen);
    else
        doctor_say(d, DOCTOR_FAIL,
                   "install a Vulkan driver (mesa-vulkan-drivers, or the vendor's); without a GPU "
                   "the package diffused-software",
                   json_array_size(list) ? "none of the Vulkan devices can be used"
                                         : "there is no Vulkan device");
}

/* --- folders ---------------------------------------------------------------------------------- */

/* Owner and mode of a folder of the daemon. False when there is no use in looking further. */
static bool check_folder(struct doctor *d, const char *path, mode_t wrong_bits, const char *mode)
{
    struct stat st;
    char mend[CTL_PATH_SIZE + 128];

    (void)snprintf(mend, sizeof mend, "install -d -o diffused -g diffused -m %s %s", mode, path);
    if (stat(path, &st) < 0) {
        bool is_hidden = errno == EACCES;
        if (is_hidden)
            doctor_say(d, DOCTOR_SKIP, "run doctor as root", "%s: not to be seen by you", path);
        else if (d->is_devel && errno == ENOENT)
            doctor_say(d, DOCTOR_SKIP, NULL, "%s: made at the daemon's start", path);
        else
            doctor_say(d, DOCTOR_FAIL, mend, "%s: %s", path, strerror(errno));
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        doctor_say(d, DOCTOR_FAIL, mend, "%s: not a directory", path);
        return false;
    }
    if (!d->is_devel && d->uid && st.st_uid != d->uid) {
        doctor_say(d, DOCTOR_FAIL, mend, "%s: belongs to uid %u, not to diffused", path,
                   (unsigned)st.st_uid);
        return false;
    }
    if (st.st_mode & wrong_bits) {
        doctor_say(d, DOCTOR_WARN, mend, "%s: mode %04o lets others in", path,
                   (unsigned)st.st_mode & 07777);
        return false;
    }
    return true;
}

static void check_room(struct doctor *d, const char *path)
{
    char text[32] = "0";
    struct statvfs v;

    (void)ctl_config_get(&d->config, "spool", "keep_free_megabytes", text, sizeof text);
    uint64_t keep = strtoull(text, NULL, 10);
    if (statvfs(path, &v) < 0) {
        doctor_say(d, DOCTOR_FAIL, NULL, "%s: %s", path, strerror(errno));
        return;
    }
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize >> 20;
    if (v.f_flag & ST_RDONLY)
        doctor_say(d, DOCTOR_FAIL, "mount it writable", "%s: the file system is read-only", path);
    else if (room < keep)
        doctor_say(d, DOCTOR_FAIL, "delete files, or lower [spool] keep_free_megabytes",
                   "%s: %" PRIu64 " MiB free, %" PRIu64 " are to be kept: no job is taken in", path,
                   room, keep);
    else if (v.f_files > 0 && v.f_favail < 1000)
        doctor_say(d, DOCTOR_WARN, "delete files", "%s: only %" PRIu64 " inodes are free", path,
                   (uint64_t)v.f_favail);
    else
        doctor_say(d, DOCTOR_OK, NULL, "%s, %" PRIu64 " MiB free", path, room);
}

void doctor_spool(struct doctor *d)
{
    char path[CTL_PATH_SIZE];

    if (!ctl_config_get(&d->config, "spool", "path", path, sizeof path))
        doctor_say(d, DOCTOR_SKIP, NULL, "the configuration does not say where it is");
    else if (check_folder(d, path, 0022, "0700"))
        check_room(d, path);
}

void doctor_drop(struct doctor *d)
{
    char path[CTL_PATH_SIZE];

    if (!ctl_config_get(&d->config, "drop", "path", path, sizeof path))
        doctor_say(d, DOCTOR_SKIP, NULL, "the configuration has none");
    else if (check_folder(d, path, 0002, "3770"))
        check_room(d, path);
}

/* --- unit, clock ------------------------------------------------------------------------------ */

/* A text property of the unit; false when it is not to be had. */
static bool unit_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                      char *ret_text, size_t size)
{
    char *text = NULL;
    int r = sd_bus_get_property_string(bus, "org.freedesktop.systemd1", path, interface, property,
                                       NULL, &text);

    (void)snprintf(ret_text, size, "%s", r >= 0 ? text : "");
    free(text);
    return r >= 0;
}

void doctor_unit(struct doctor *d)
{
    static const char path[] = "/org/freedesktop/systemd1/unit/diffused_2eservice";
    static const char unit[] = "org.freedesktop.systemd1.Unit";
    char load[32], active[32], file[32], result[32];

    if (d->is_devel || access("/run/systemd/system", F_OK) < 0) {
        doctor_say(d, DOCTOR_SKIP, NULL,
                   d->is_devel ? "not asked for: a --devel run" : "systemd does not run here");
        return;
    }
    if (!d->bus || !unit_text(d->bus, path, unit, "LoadState", load, sizeof load) ||
        !unit_text(d->bus, path, unit, "ActiveState", active, sizeof active) ||
        !unit_text(d->bus, path, unit, "UnitFileState", file, sizeof file) ||
        !unit_text(d->bus, path, "org.freedesktop.systemd1.Service", "Result", result,
                   sizeof result)) {
        doctor_say(d, DOCTOR_SKIP, NULL, "systemd cannot be asked over the bus");
        return;
    }
    if (strcmp(load, "loaded") != 0)
        doctor_say(d, DOCTOR_FAIL, "install the package again", "diffused.service: %s", load);
    else if (strcmp(active, "failed") == 0)
        doctor_say(d, DOCTOR_FAIL, "journalctl -u diffused; then systemctl restart diffused",
                   "diffused.service failed: %s", result);
    else if (strcmp(active, "active") != 0 && strcmp(active, "activating") != 0)
        doctor_say(d, DOCTOR_WARN, "systemctl start diffused", "diffused.service is %s", active);
    else if (strcmp(file, "enabled") != 0)
        doctor_say(d, DOCTOR_WARN, "systemctl enable diffused",
                   "diffused.service is %s, but does not start with the machine", active);
    else
        doctor_say(d, DOCTOR_OK, NULL, "diffused.service is %s and %s", active, file);
}

void doctor_clock(struct doctor *d)
{
    const time_t too_early = 1704067200; /* 2024-01-01: before this program was written */
    time_t now = time(NULL);
    char text[64] = "?";
    struct tm tm;

    if (gmtime_r(&now, &tm))
        (void)strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &tm);
    if (now < too_early)
        doctor_say(d, DOCTOR_WARN, "set the clock; a board without one may leave it",
                   "%s: shown times are wrong, deadlines and retention count uptime", text);
    else
        doctor_say(d, DOCTOR_OK, NULL, "%s", text);
}
