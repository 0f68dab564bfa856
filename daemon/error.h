/* error — errno to the words of the service's contract: the last part of a bus error name, and what
 * a failed job's record holds. One table; the errno is what manager verbs and engine_run() return.
 */
#pragma once

/* What the words below do not cover is "Failed". Never NULL. */
const char *error_to_word(int err);

/* The negative errno of a word; -EPROTO for "Failed" and unknown words. */
int error_from_word(const char *word);
