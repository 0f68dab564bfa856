/* diffusectl-doctor — what the checks of `diffusectl doctor` share. A check looks and says what it
 * found with doctor_say(), at least once; it changes nothing and needs no daemon. */
#pragma once

#include "dbus/diffusectl.h"
#include "vk/base/array.h"

enum doctor_level {
    DOCTOR_OK,
    DOCTOR_SKIP, /* could not be seen, or is not asked for */
    DOCTOR_WARN, /* works, but not as it should */
    DOCTOR_FAIL, /* no pictures before it is mended */
};

struct doctor_finding {
    const char *check; /* its name */
    enum doctor_level level;
    char *text, *mend; /* mend: NULL when there is nothing to do */
};

struct doctor {
    struct ctl_config config;
    bool quick;                /* files are not hashed */
    bool is_devel;             /* nothing is installed */
    char model[CTL_PATH_SIZE]; /* of the configuration; "" */
    uint64_t memory;           /* of the device, bytes; 0: not known */
    uid_t uid;                 /* the daemon's user; 0: there is none */
    gid_t gid;
    sd_bus *bus;       /* NULL: not reachable */
    const char *check; /* the one that runs */
    struct ARRAY(struct doctor_finding) findings;
};

void doctor_say(struct doctor *d, enum doctor_level level, const char *mend, const char *format,
                ...) __attribute__((format(printf, 4, 5)));

/* In the order of the page. */
void doctor_configuration(struct doctor *d);
void doctor_device(struct doctor *d);
void doctor_model(struct doctor *d);
void doctor_hashes(struct doctor *d);
void doctor_user(struct doctor *d);
void doctor_spool(struct doctor *d);
void doctor_drop(struct doctor *d);
void doctor_bus(struct doctor *d);
void doctor_daemon(struct doctor *d);
void doctor_access(struct doctor *d);
void doctor_unit(struct doctor *d);
void doctor_clock(struct doctor *d);
