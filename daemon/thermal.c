#include "daemon/thermal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vk/base/cleanup.h"

/* What a sensor may say; drivers show absolute zero, 0 or huge values where they know nothing. */
#define COLDEST (-60000)
#define HOTTEST 200000

/* A file of sysfs without its newline, cut to the buffer. */
static int read_text(int directory, const char *name, char *ret_text, size_t size)
{
    _cleanup_(closep) int fd =
        openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, ret_text, size - 1);
    if (n < 0)
        return -errno;
    ret_text[n] = '\0';
    ret_text[strcspn(ret_text, "\n")] = '\0';
    return 0;
}

static bool read_temperature(int directory, const char *name, int32_t *ret_value)
{
    char text[24], *end;

    if (read_text(directory, name, text, sizeof text) < 0)
        return false;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < COLDEST || value > HOTTEST)
        return false;
    *ret_value = (int32_t)value;
    return true;
}

/* Where the zone begins to be hot. A trip at 0 or below is switched off. */
static bool read_limit(int zone, int32_t *ret_limit)
{
    static const struct {
        const char *type;
        bool is_end; /* of the board: keep away from it */
    } types[] = {{"passive", false}, {"hot", true}, {"critical", true}};
    int32_t passive = INT32_MAX, end = INT32_MAX;

    for (unsigned i = 0; i < THERMAL_TRIPS_MAX; i++) {
        char name[40], type[24];
        int32_t at;
        (void)snprintf(name, sizeof name, "trip_point_%u_type", i);
        if (read_text(zone, name, type, sizeof type) < 0)
            break; /* they are numbered without holes */
        (void)snprintf(name, sizeof name, "trip_point_%u_temp", i);
        if (!read_temperature(zone, name, &at) || at <= 0)
            continue;
        for (size_t k = 0; k < ARRAY_SIZE(types); k++) {
            int32_t *lowest = types[k].is_end ? &end : &passive;
            if (strcmp(type, types[k].type) == 0 && at < *lowest)
                *lowest = at;
        }
    }
    *ret_limit = passive < INT32_MAX ? passive : end - THERMAL_MARGIN;
    return passive < INT32_MAX || end < INT32_MAX;
}

static void add_zone(int directory, const char *entry, struct thermal *t)
{
    _cleanup_(closep) int zone = openat(directory, entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int32_t temperature, limit;
    char type[32];

    if (zone < 0 || !read_temperature(zone, "temp", &temperature) || !read_limit(zone, &limit))
        return;
    if (t->zones++ > 0 && temperature - limit <= t->temperature - t->limit)
        return;
    t->temperature = temperature;
    t->limit = limit;
    if (read_text(zone, "type", type, sizeof type) < 0 || !*type)
        (void)snprintf(type, sizeof type, "no type");
    (void)snprintf(t->name, sizeof t->name, "%.16s (%.12s)", entry, type);
}

int thermal_read(int directory, struct thermal *ret)
{
    const struct dirent *entry;
    unsigned seen = 0;

    *ret = (struct thermal){0};
    if (directory < 0)
        return 0;
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    _cleanup_(closedirp) DIR *d = fdopendir(fd);
    if (!d) {
        int r = -errno;
        (void)close(fd);
        return r;
    }
    for (errno = 0; seen < THERMAL_ZONES_MAX && (entry = readdir(d)); errno = 0) {
        if (strncmp(entry->d_name, "thermal_zone", strlen("thermal_zone")) != 0)
            continue;
        seen++;
        add_zone(directory, entry->d_name, ret);
    }
    return -errno;
}

bool thermal_is_hot(const struct thermal *thermal, bool was_hot)
{
    int32_t from = was_hot ? thermal->limit - THERMAL_HYSTERESIS : thermal->limit;

    return thermal->zones > 0 && thermal->temperature >= from;
}
