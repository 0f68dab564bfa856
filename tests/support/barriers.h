/* barriers — a pure checker of recorded programs.
 *
 * Every pair of launches that touch a common byte, at least one of them writing, must have a
 * barrier (or the end of a submission, which begins the next with one) between them. It shares no
 * code with program_make(): it looks at every pair. */
#pragma once

#include "vk/graph/record.h"

/* The number of unprotected pairs; *ret_first and *ret_second (may be NULL) name the first one's
 * commands. */
uint32_t barriers_missing(const struct program *p, uint32_t *ret_first, uint32_t *ret_second);
