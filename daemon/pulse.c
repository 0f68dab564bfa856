#include "daemon/pulse.h"

#include <inttypes.h>
#include <stdio.h>

#define USEC_PER_SEC UINT64_C(1000000)

void pulse_on_packet(struct pulse *pulse)
{
    pulse->quiet_usec = 0;
}

void pulse_on_work(struct pulse *pulse)
{
    pulse->still_usec = 0;
}

void pulse_on_beat(struct pulse *pulse, uint64_t progress)
{
    if (progress == pulse->progress)
        return;
    if (pulse->still_usec > pulse->slowest_usec)
        pulse->slowest_usec = pulse->still_usec;
    pulse->still_usec = 0;
    pulse->progress = progress;
}

void pulse_on_look(struct pulse *pulse, const struct pulse_limits *limits, uint64_t elapsed_usec,
                   bool must_advance)
{
    uint64_t most = 2 * limits->look_usec;
    uint64_t counted = elapsed_usec < most ? elapsed_usec : most;

    pulse->quiet_usec += counted;
    pulse->still_usec = must_advance ? pulse->still_usec + counted : 0;
}

uint64_t pulse_still_limit(const struct pulse *pulse, const struct pulse_limits *limits)
{
    if (!pulse->is_proven || pulse->slowest_usec > limits->still_max_usec / PULSE_STILL_FACTOR)
        return limits->still_max_usec;
    uint64_t limit = pulse->slowest_usec * PULSE_STILL_FACTOR;
    return limit < limits->still_min_usec ? limits->still_min_usec : limit;
}

bool pulse_is_stuck(const struct pulse *pulse, const struct pulse_limits *limits, char *ret_why,
                    size_t size)
{
    if (pulse->quiet_usec > limits->quiet_usec) {
        (void)snprintf(ret_why, size, "its heartbeat stopped %" PRIu64 " s ago",
                       pulse->quiet_usec / USEC_PER_SEC);
        return true;
    }
    if (pulse->still_usec > pulse_still_limit(pulse, limits)) {
        (void)snprintf(ret_why, size, "it has made no progress for %" PRIu64 " s",
                       pulse->still_usec / USEC_PER_SEC);
        return true;
    }
    return false;
}
