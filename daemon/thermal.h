/* thermal — whether the board is hot, from the kernel's thermal zones.
 *
 * A zone is hot from its passive trip on (where the kernel itself begins to slow the board down),
 * or where it has none from THERMAL_MARGIN below its hot or critical trip; it is cool again
 * THERMAL_HYSTERESIS below that. A board without zones, a zone without such trips, and whatever
 * cannot be read or is no temperature, is never hot. All temperatures in thousandths of a degree
 * Celsius, as in sysfs. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define THERMAL_DIRECTORY  "/sys/class/thermal"
#define THERMAL_ZONES_MAX  64u
#define THERMAL_TRIPS_MAX  32u
#define THERMAL_MARGIN     10000
#define THERMAL_HYSTERESIS 5000

/* The zone nearest to its limit, or furthest over it. */
struct thermal {
    unsigned zones; /* that have a temperature and a limit; 0: the rest says nothing */
    char name[32];  /* "thermal_zone0 (cpu-thermal)" */
    int32_t temperature, limit;
};

/* Reads THERMAL_DIRECTORY, or a made-up one; `directory` stays the caller's, -1: there is none.
 * 0, or -errno when the directory cannot be listed; *ret is set in any case. */
int thermal_read(int directory, struct thermal *ret);

/* The decision; was_hot: the last one. */
bool thermal_is_hot(const struct thermal *thermal, bool was_hot);
