/* fault — why something failed, in words a person can act on.
 *
 * Functions whose failure a person must understand (model load, request, configuration) take a
 * `struct fault *` last. It is filled where the error starts and passed up untouched; callers that
 * do not care pass NULL. The text names what and where, carries no trailing newline, and holds no
 * prompt. */
#pragma once

#include <stdarg.h>

struct fault {
    int err;        /* negative errno, 0 while nothing failed */
    char text[256]; /* UTF-8: cut between characters when longer; what is none becomes '?' */
};

/* Fills `f` (if not NULL) and returns `err`, so that `return fault_set(f, -EINVAL, "…", …)`
 * works. */
int fault_set(struct fault *f, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Makes UTF-8 of any text that ends, in place, as fault_set() does with its own: for what was cut
 * at some length and goes on the bus. */
void fault_mend(char *text);

/* Puts "prefix: " before the text already in `f`; returns f->err, or `err` when f is NULL. */
int fault_prefix(struct fault *f, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
