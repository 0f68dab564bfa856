/* Pictures in other hands. A memfd given away costs memory until its last holder lets it go, and
 * while it waits in the bus daemon's queue for a client that does not read it also uses up what the
 * bus daemon lets us send (64 descriptors by default, then it takes nothing from us any more). So
 * they are counted, and who holds too many gets no more.
 *
 * The kernel tells: a write lease on a file is only granted where nobody else has it open, mappings
 * included. What is given away is therefore a second, read-only opening of the memfd; ours is kept,
 * and tried from time to time. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dbus/bus-internal.h"

#define LOANS_MAX  48u /* of all users: below the bus daemon's 64 */
#define SWEEP_USEC 1000000u

struct loan {
    struct loan *next;
    uint32_t uid;
    int fd;
};

static bool is_returned(int fd)
{
    if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
        return errno != EAGAIN;           /* no leases here: nothing is counted */
    (void)fcntl(fd, F_SETLEASE, F_UNLCK); /* closing it would, too */
    return true;
}

static void sweep(struct bus *bus)
{
    for (struct loan **at = &bus->loans, *loan; (loan = *at);) {
        if (!is_returned(loan->fd)) {
            at = &loan->next;
            continue;
        }
        *at = loan->next;
        (void)close(loan->fd);
        free(loan);
    }
}

static int on_sweep(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct bus *bus = userdata;

    (void)usec;
    sweep(bus);
    if (!bus->loans)
        return 0; /* one shot: off now */
    int r = sd_event_source_set_time_relative(source, SWEEP_USEC);
    return r < 0 ? r : sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int plan_sweep(struct bus *bus)
{
    if (!bus->sweep)
        return sd_event_add_time_relative(bus->event, &bus->sweep, CLOCK_MONOTONIC, SWEEP_USEC,
                                          SWEEP_USEC / 2, on_sweep, bus);
    int r = sd_event_source_set_time_relative(bus->sweep, SWEEP_USEC);
    return r < 0 ? r : sd_event_source_set_enabled(bus->sweep, SD_EVENT_ONESHOT);
}

static void count(const struct bus *bus, uint32_t uid, unsigned *ret_his, unsigned *ret_all)
{
    *ret_his = *ret_all = 0;
    for (const struct loan *loan = bus->loans; loan; loan = loan->next) {
        *ret_his += loan->uid == uid;
        ++*ret_all;
    }
}

static unsigned limit_of(const struct bus *bus)
{
    uint64_t limit = manager_get_config(bus->manager)->limit_user_descriptors;

    return (unsigned)limit; /* 1 to 16: the table of the configuration sees to it */
}

int bus_check_loans(struct bus *bus, uint32_t uid, sd_bus_error *error)
{
    unsigned his, all;

    count(bus, uid, &his, &all);
    if (his >= limit_of(bus) || all >= LOANS_MAX) {
        sweep(bus);
        count(bus, uid, &his, &all);
    }
    if (his >= limit_of(bus))
        return bus_error_setf(
            error, -EDQUOT, "you hold %u pictures open: close one before you fetch the next", his);
    if (all >= LOANS_MAX)
        return bus_error_setf(error, -EDQUOT, "%u pictures are held open by others: try again",
                              all);
    return 0;
}

int bus_lend(struct bus *bus, uint32_t uid, int memfd, sd_bus_error *error)
{
    char path[64];

    int r = bus_check_loans(bus, uid, error);
    if (r < 0)
        return r;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", memfd);
    _cleanup_(closep) int ours = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_(closep) int theirs = open(path, O_RDONLY | O_CLOEXEC);
    struct loan *loan = ours < 0 || theirs < 0 ? NULL : calloc(1, sizeof *loan);
    if (!loan)
        return bus_error_setf(error, ours < 0 || theirs < 0 ? -errno : -ENOMEM,
                              "the picture cannot be handed over: %s", strerror(errno));
    loan->uid = uid;
    loan->fd = TAKE_FD(ours);
    loan->next = bus->loans;
    bus->loans = loan;
    if (plan_sweep(bus) < 0)
        sweep(bus); /* out of memory: the next GetResult does it */
    return TAKE_FD(theirs);
}

void bus_loans_done(struct bus *bus)
{
    bus->sweep = sd_event_source_disable_unref(bus->sweep);
    for (struct loan *loan = bus->loans, *next; loan; loan = next) {
        next = loan->next;
        (void)close(loan->fd);
        free(loan);
    }
    bus->loans = NULL;
}
