/* oom — lets the n-th request for memory fail, n = 1, 2, … until an operation runs clean; each n
 * once alone and once with all that follow it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "tests/oom/control.h"
#include "vk/base/fault.h"

/* First in main(): starts the program again with the shim before its allocator. Returns NULL, with
 * a word why on standard output, where that cannot be. */
struct oom_control *oom_begin(char **argv);

/* One operation of a test. Between oom_begin() and its end it may not keep anything: what it gets
 * it gives back. Calls oom_disarm() before it looks closer at what it got. Returns what the code
 * under test returned, with its fault. */
typedef int oom_operation_t(void *userdata, struct fault *f);

void oom_disarm(void);
/* After oom_disarm(): goes on counting. So an operation may prepare something first. */
void oom_rearm(void);

/* Every trial must end in success or -ENOMEM, must leave no block and no descriptor behind, and
 * the operation must run clean in the end. Fails as cmocka does, naming n and the caller. Returns
 * the number of trials. */
unsigned oom_exhaust(const char *name, oom_operation_t *operation, void *userdata);
