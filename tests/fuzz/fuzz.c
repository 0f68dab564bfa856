#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

_Noreturn void fuzz_fail(const char *file, int line, const char *condition)
{
    (void)fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    abort();
}

/* xorshift32. Source: Marsaglia, "Xorshift RNGs", 2003. */
uint32_t fuzz_random(uint32_t *seed)
{
    uint32_t x = *seed ? *seed : 0x9e3779b9u;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    *seed = x;
    return x;
}

uint32_t fuzz_below(uint32_t *seed, uint32_t bound)
{
    return bound ? (uint32_t)((uint64_t)fuzz_random(seed) * bound >> 32) : 0;
}

size_t fuzz_insert(uint8_t *data, size_t size, size_t max_size, size_t at, const void *what,
                   size_t n)
{
    if (at > size || n > max_size || size > max_size - n)
        return size;
    memmove(data + at + n, data + at, size - at);
    memcpy(data + at, what, n);
    return size + n;
}

uint32_t fuzz_crc32(const uint8_t *data, size_t size)
{
    uint32_t c = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        c ^= data[i];
        for (unsigned bit = 0; bit < 8; bit++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
    }
    return ~c;
}

bool fuzz_is_utf8(const char *text, size_t size)
{
    utf8proc_int32_t c;

    while (size > 0) {
        utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &c);
        if (n <= 0)
            return false;
        text += n;
        size -= (size_t)n;
    }
    return true;
}

void fuzz_check_fault(int r, const struct fault *f, const int *allowed)
{
    size_t length = strnlen(f->text, sizeof f->text);

    while (*allowed && *allowed != r)
        allowed++;
    if (*allowed != r || f->err != r || length == 0 || length == sizeof f->text ||
        !fuzz_is_utf8(f->text, length))
        (void)fprintf(stderr, "returned %d, fault %d: %.*s\n", r, f->err, (int)length, f->text);
    fuzz_check(r < 0 && *allowed == r);
    fuzz_check(f->err == r);
    fuzz_check(length > 0 && length < sizeof f->text);
    fuzz_check(fuzz_is_utf8(f->text, length));
}

static size_t put_word(const struct fuzz_target *target, uint8_t *data, size_t size,
                       size_t max_size, uint32_t *seed)
{
    uint32_t count = 0;

    while (target->words[count])
        count++;
    const char *word = target->words[fuzz_below(seed, count)];
    return fuzz_insert(data, size, max_size, fuzz_below(seed, (uint32_t)size + 1), word,
                       strlen(word));
}

size_t fuzz_mutate(const struct fuzz_target *target, uint8_t *data, size_t size, size_t max_size,
                   uint32_t seed, fuzz_bytes_t *bytes)
{
    if (target->words && fuzz_below(&seed, 4) == 0)
        size = put_word(target, data, size, max_size, &seed);
    if (target->mutate)
        return target->mutate(data, size, max_size, seed, bytes);
    return bytes(data, size, max_size);
}
