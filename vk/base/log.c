#include "vk/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static enum log_level max_level = LOG_LEVEL_INFO; /* the one setting of the process, set at start */

void log_set_max_level(enum log_level level)
{
    max_level = level;
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[1024];
    va_list args;

    if (level > max_level)
        return;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (isatty(STDERR_FILENO))
        (void)fprintf(stderr, "%s\n", line);
    else
        (void)fprintf(stderr, "<%d>%s\n", (int)level, line);
}
