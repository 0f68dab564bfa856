#include "vk/base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static atomic_int max_level = LOG_LEVEL_INFO; /* the one setting of the process */

void log_set_max_level(enum log_level level)
{
    atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_max_level(void)
{
    return (enum log_level)atomic_load_explicit(&max_level, memory_order_relaxed);
}

bool log_is_on(enum log_level level)
{
    return level <= log_get_max_level();
}

void log_format(char *line, size_t size, const char *format, va_list args)
{
    (void)vsnprintf(line, size, format, args);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[1024];
    va_list args;

    if (!log_is_on(level))
        return;
    va_start(args, format);
    log_format(line, sizeof line, format, args);
    va_end(args);
    if (isatty(STDERR_FILENO))
        (void)fprintf(stderr, "%s\n", line);
    else
        (void)fprintf(stderr, "<%d>%s\n", (int)level, line);
}
