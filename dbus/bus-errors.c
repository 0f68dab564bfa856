#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "daemon/error.h"
#include "dbus/bus-internal.h"

/* The one error that is not ours: no right to a path or a verb. */
static const char *name_of(int err, char *buffer, size_t size)
{
    if (err == -EACCES)
        return SD_BUS_ERROR_ACCESS_DENIED;
    (void)snprintf(buffer, size, BUS_ERROR_PREFIX "%s", error_to_word(err));
    return buffer;
}

int bus_error_set(sd_bus_error *error, int err, const struct fault *f)
{
    return bus_error_setf(error, err, "%s", f->text);
}

int bus_error_setf(sd_bus_error *error, int err, const char *format, ...)
{
    char name[96], text[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return sd_bus_error_set(error, name_of(err, name, sizeof name), text);
}

const char *bus_error_name(int err, char *buffer, size_t size)
{
    if (err == 0)
        return "";
    return name_of(err, buffer, size);
}
