#include "vk/base/log.h"

#include <stdio.h>
#include <unistd.h>

static enum log_level max_level = LOG_LEVEL_INFO; /* the one setting of the process, set at start */

void log_set_max_level(enum log_level level)
{
    max_level = level;
}

bool log_is_on(enum log_level level)
{
    return level <= max_level;
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
