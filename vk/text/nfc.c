/* The three steps of Unicode's annex 15: decompose fully, sort each run of marks by combining class
 * (stable), compose each mark with the last starter that nothing blocks.
 *
 * The reference's library has older tables (Unicode 9): marks that came later count as class 0, and
 * the pair that makes U+11938 is not composed. Both are tables here; found by comparing every code
 * point assigned up to Unicode 15 (tests/golden/README.md). */
#include "vk/text/nfc.h"

#include <errno.h>
#include <stdbool.h>
#include <utf8proc.h>

#include "vk/base/cleanup.h"

#define DECOMPOSITION_MAX 18 /* code points; the longest canonical one has 4 */

/* Marks younger than the reference's tables, ascending. */
static const struct {
    uint32_t first, last;
} young_marks[] = {
    {0x07fd, 0x07fd},   {0x0898, 0x089f},   {0x08ca, 0x08d3},   {0x09fe, 0x09fe},
    {0x0c3c, 0x0c3c},   {0x0d3b, 0x0d3c},   {0x0eba, 0x0eba},   {0x1715, 0x1715},
    {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x10d24, 0x10d27},
    {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
    {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
};

#define YOUNG_LETTER 0x11938u /* the one composed letter younger than them */

int codepoints_add(struct codepoints *points, uint32_t c, uint32_t at)
{
    struct codepoint *point = array_push(points);

    if (!point)
        return -ENOMEM;
    *point = (struct codepoint){c, at};
    return 0;
}

bool codepoint_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

int codepoints_decode(struct codepoints *points, const char *text, size_t length, size_t *ret_bad)
{
    size_t at = 0;

    while (at < length) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                              (utf8proc_ssize_t)(length - at), &c);
        if (n <= 0) {
            if (ret_bad)
                *ret_bad = at;
            return -EILSEQ;
        }
        if (codepoints_add(points, (uint32_t)c, (uint32_t)at) < 0)
            return -ENOMEM;
        at += (size_t)n;
    }
    return 0;
}

static uint8_t combining_class(uint32_t c)
{
    if (c < 0x300)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(young_marks) && young_marks[i].first <= c; i++)
        if (c <= young_marks[i].last)
            return 0;
    return (uint8_t)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

static int decompose(struct codepoints *to, const struct codepoint *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        utf8proc_int32_t parts[DECOMPOSITION_MAX] = {(utf8proc_int32_t)from[i].c};
        utf8proc_ssize_t n = 1;
        if (from[i].c >= 0xc0 && from[i].c != YOUNG_LETTER)
            n = utf8proc_decompose_char(parts[0], parts, DECOMPOSITION_MAX, UTF8PROC_DECOMPOSE,
                                        NULL);
        for (utf8proc_ssize_t k = 0; k < n; k++)
            if (codepoints_add(to, (uint32_t)parts[k], from[i].at) < 0)
                return -ENOMEM;
    }
    return 0;
}

/* Sorts marks (no starter among them) by class, by counting, so that a long run costs no more. */
static void sort_marks(struct codepoint *marks, size_t count, struct codepoint *scratch)
{
    size_t start[257] = {0};

    for (size_t i = 0; i < count; i++)
        start[combining_class(marks[i].c) + 1]++;
    for (size_t k = 1; k < ARRAY_SIZE(start); k++)
        start[k] += start[k - 1];
    memcpy(scratch, marks, count * sizeof *marks);
    for (size_t i = 0; i < count; i++)
        marks[start[combining_class(scratch[i].c)]++] = scratch[i];
}

static int order(struct codepoints *points)
{
    if (points->count == 0)
        return 0;
    _cleanup_(freep) struct codepoint *scratch = reallocarray(NULL, points->count, sizeof *scratch);
    if (!scratch)
        return -ENOMEM;
    for (size_t i = 0; i < points->count; i++) {
        size_t end = i;
        while (end < points->count && combining_class(points->items[end].c) != 0)
            end++;
        if (end - i > 1)
            sort_marks(points->items + i, end - i, scratch);
        i = end;
    }
    return 0;
}

/* The character that canonically is `a` followed by `b`, 0 when there is none. */
static uint32_t compose_pair(uint32_t a, uint32_t b)
{
    utf8proc_int32_t pair[2] = {(utf8proc_int32_t)a, (utf8proc_int32_t)b};

    if (b < 0x300) /* nothing below combines with what stands before it */
        return 0;
    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_STABLE | UTF8PROC_COMPOSE) != 1)
        return 0;
    return pair[0] == (utf8proc_int32_t)YOUNG_LETTER ? 0 : (uint32_t)pair[0];
}

/* `last_class` is 0 directly behind the starter, else that of the mark before. */
static int compose(struct codepoints *to, const struct codepoint *from, size_t count)
{
    size_t starter = SIZE_MAX;
    uint8_t last_class = 0;

    for (size_t i = 0; i < count; i++) {
        uint8_t class = combining_class(from[i].c);
        uint32_t whole = 0;
        if (starter != SIZE_MAX && (last_class == 0 || last_class < class))
            whole = compose_pair(to->items[starter].c, from[i].c);
        if (whole) {
            to->items[starter].c = whole;
            continue;
        }
        if (class == 0)
            starter = to->count;
        last_class = class;
        if (codepoints_add(to, from[i].c, from[i].at) < 0)
            return -ENOMEM;
    }
    return 0;
}

int nfc_append(struct codepoints *to, const struct codepoint *from, size_t count)
{
    struct codepoints parts = {0};

    int r = decompose(&parts, from, count);
    if (r == 0)
        r = order(&parts);
    if (r == 0)
        r = compose(to, parts.items, parts.count);
    array_done(&parts);
    return r;
}
