/* layout — how logical channels lie in memory.
 *
 * Rows of channels (NHWC) are padded to 8 so that every access is 16 bytes; the padding holds
 * zeros. Two shapes need padding inside the row: a concatenation of two tensors (each padded on its
 * own) and attention heads whose width is no multiple of 8 (each head padded on its own). */
#pragma once

#include <stdint.h>

struct layout {
    uint32_t count; /* logical channels */
    uint32_t first; /* > 0: two segments, `first` channels and the rest, each padded to 8 */
    uint32_t run;   /* > 0: runs of `run` channels (one head each), each padded to 8 */
};

static inline uint32_t pad8(uint32_t n)
{
    return (n + 7) / 8 * 8;
}

static inline struct layout layout_plain(uint32_t count)
{
    return (struct layout){.count = count};
}

/* Channels in memory, a multiple of 8. */
static inline uint32_t layout_padded(struct layout l)
{
    if (l.first)
        return pad8(l.first) + pad8(l.count - l.first);
    if (l.run)
        return l.count / l.run * pad8(l.run);
    return pad8(l.count);
}

/* Where logical channel c lies; pack.comp holds the same lines. */
static inline uint32_t layout_position(struct layout l, uint32_t c)
{
    if (l.first)
        return c < l.first ? c : pad8(l.first) + c - l.first;
    if (l.run)
        return c / l.run * pad8(l.run) + c % l.run;
    return c;
}
