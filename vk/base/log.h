/* log — one line on stderr per event, with the syslog priority prefix systemd understands.
 *
 * Only the processes' own code logs (daemon/, the mains); vk/ returns faults. Lines carry job ids
 * and causes, never prompts. On a terminal the prefix is left out. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_NOTICE = 5,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7,
};

/* Lines above this level are dropped. Default LOG_LEVEL_INFO. Any thread may change it any time. */
void log_set_max_level(enum log_level level);
enum log_level log_get_max_level(void);

bool log_is_on(enum log_level level);

/* vsnprintf, and control characters become '?': file names and texts of users may hold them. */
void log_format(char *line, size_t size, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
