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
    fault_mend(text);
    return sd_bus_error_set(error, name_of(err, name, sizeof name), text);
}

void bus_reply_error(sd_bus_message *call, int err, const struct fault *f)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    (void)bus_error_set(&error, err, f);
    (void)sd_bus_reply_method_error(call, &error); /* the caller may be gone */
    sd_bus_error_free(&error);
}

void bus_on_done(int r, const struct fault *f, void *userdata)
{
    sd_bus_message *call = userdata;

    if (r < 0)
        bus_reply_error(call, r, f);
    else
        (void)sd_bus_reply_method_return(call, NULL); /* the caller may be gone */
    sd_bus_message_unref(call);
}

const char *bus_error_name(int err, char *buffer, size_t size)
{
    if (err == 0)
        return "";
    return name_of(err, buffer, size);
}
