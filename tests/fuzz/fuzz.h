/* fuzz — one target per reader of bytes that others wrote, for libFuzzer and for `make check`.
 *
 * A target is a file fuzz-<name>.c and a row of targets.c. `run` feeds one input and checks what
 * must hold of the answer with fuzz_check(), which names the place and aborts. libfuzzer.c puts a
 * target behind libFuzzer's entry points (`make fuzz`); test-corpus.c feeds the kept corpus and
 * seeded mutations of it with any compiler. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/fault.h"

/* A mutation that knows nothing of the format: libFuzzer's or test-corpus.c's. Returns the new
 * size. */
typedef size_t fuzz_bytes_t(uint8_t *data, size_t size, size_t max_size);

struct fuzz_target {
    const char *name; /* of the corpus's folder */
    size_t max_size;  /* of an input */
    void (*run)(const uint8_t *data, size_t size);
    /* Changes an input in place with the format in mind; NULL: bytes are changed blindly. */
    size_t (*mutate)(uint8_t *data, size_t size, size_t max_size, uint32_t seed,
                     fuzz_bytes_t *bytes);
    const char *const *words; /* of the format, NULL-terminated: put in now and then; may be NULL */
};

extern const struct fuzz_target *const fuzz_targets[]; /* NULL-terminated */
/* NULL when there is none. */
const struct fuzz_target *fuzz_find(const char *name);

/* One mutation of an input, in one of the target's ways. */
size_t fuzz_mutate(const struct fuzz_target *target, uint8_t *data, size_t size, size_t max_size,
                   uint32_t seed, fuzz_bytes_t *bytes);

/* --- for targets ------------------------------------------------------------------------------ */

#define fuzz_check(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__FILE__, __LINE__, #condition);                                             \
    } while (0)
_Noreturn void fuzz_fail(const char *file, int line, const char *condition);

/* A small generator: the same seed, the same numbers. fuzz_below(…, 0) is 0. */
uint32_t fuzz_random(uint32_t *seed);
uint32_t fuzz_below(uint32_t *seed, uint32_t bound);

/* Puts `n` bytes into data at `at`; nothing happens when there is no room. The new size. */
size_t fuzz_insert(uint8_t *data, size_t size, size_t max_size, size_t at, const void *what,
                   size_t n);

/* CRC-32 as PNG has it, bit by bit. Source: PNG 1.2, appendix D. */
uint32_t fuzz_crc32(const uint8_t *data, size_t size);

bool fuzz_is_utf8(const char *text, size_t size);
/* A refusal: the error is `r` < 0 and one of `allowed` (0-terminated), and the text is fit for a
 * person and for D-Bus. */
void fuzz_check_fault(int r, const struct fault *f, const int *allowed);
