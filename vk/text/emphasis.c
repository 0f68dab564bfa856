/* One walk over the code points. Every stretch of text, every escaped character is a part of its
 * own; a closing bracket multiplies the parts since its opening one, so that products come about in
 * the order of the reference, and equal weights are equal bit by bit when neighbours are joined in
 * the end (which decides where a word ends for the tokenizer). */
#include "vk/text/emphasis.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "vk/base/cleanup.h"

#define ROUND      1.1
#define SQUARE     (1 / 1.1)
#define NUMBER_MAX 64u /* characters of a weight */

struct parser {
    uint32_t length;          /* bytes of the source */
    struct codepoints points; /* the source */
    struct emphasis out;
    struct ARRAY(size_t) round; /* parts that an open bracket starts at */
    struct ARRAY(size_t) square;
    unsigned flags;
    struct fault *f;
};

static void parser_done(struct parser *p)
{
    emphasis_done(&p->out);
    array_done(&p->points);
    array_done(&p->round);
    array_done(&p->square);
}

static int out_of_memory(struct parser *p)
{
    return fault_set(p->f, -ENOMEM, "out of memory");
}

/* --- parts ------------------------------------------------------------------------------------ */

static struct emphasis_part *new_part(struct parser *p, size_t first)
{
    struct emphasis_part *part = array_push(&p->out.parts);
    bool is_end = first == p->points.count;

    if (part)
        *part = (struct emphasis_part){.first = p->out.points.count,
                                       .at = is_end ? p->length : p->points.items[first].at,
                                       .weight = 1};
    return part;
}

/* Appends source characters first … end - 1 as a part; none at all is a part too. */
static int add_part(struct parser *p, size_t first, size_t end)
{
    struct emphasis_part *part = new_part(p, first);

    if (!part)
        return out_of_memory(p);
    part->count = end - first;
    for (size_t i = first; i < end; i++) /* there is room for all of them */
        p->out.points.items[p->out.points.count++] = p->points.items[i];
    return 0;
}

static int add_break(struct parser *p, size_t at)
{
    struct emphasis_part *part = new_part(p, at);

    if (!part)
        return out_of_memory(p);
    part->is_break = true;
    return 0;
}

static bool is_word(uint32_t c)
{
    utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)c);

    return c == '_' || (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
           (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

/* Is the word BREAK at i of the stretch first … end - 1, with nothing of a word beside it? */
static bool is_break_at(const struct parser *p, size_t first, size_t i, size_t end)
{
    static const char word[] = "BREAK";
    const struct codepoint *c = p->points.items;
    size_t n = sizeof word - 1;

    if (end - i < n || (i > first && is_word(c[i - 1].c)) || (i + n < end && is_word(c[i + n].c)))
        return false;
    for (size_t k = 0; k < n; k++)
        if (c[i + k].c != (uint32_t)word[k])
            return false;
    return true;
}

/* A stretch without syntax but for BREAK, whose blanks around vanish. */
static int add_text(struct parser *p, size_t first, size_t end)
{
    const struct codepoint *c = p->points.items;
    size_t start = first;
    int r = 0;

    for (size_t i = first; i < end && r == 0 && p->flags & EMPHASIS_BREAKS; i++) {
        if (!is_break_at(p, first, i, end))
            continue;
        size_t stop = i;
        while (stop > start && codepoint_is_space(c[stop - 1].c))
            stop--;
        r = add_part(p, start, stop);
        if (r == 0)
            r = add_break(p, i);
        i += 5; /* the word */
        while (i < end && codepoint_is_space(c[i].c))
            i++;
        start = i--;
    }
    return r < 0 ? r : add_part(p, start, end);
}

static void multiply(struct parser *p, size_t first, double factor)
{
    for (size_t i = first; i < p->out.parts.count; i++)
        p->out.parts.items[i].weight *= factor;
}

/* --- syntax ----------------------------------------------------------------------------------- */

static bool is_syntax(uint32_t c)
{
    return c == '\\' || c == '(' || c == ')' || c == '[' || c == ']' || c == ':';
}

static size_t skip_blanks(const struct parser *p, size_t i)
{
    while (i < p->points.count && codepoint_is_space(p->points.items[i].c))
        i++;
    return i;
}

static bool is_digit_or_dot(uint32_t c)
{
    return c == '.' || (c >= '0' && c <= '9');
}

/* The end of ":NUMBER)" from the colon at i on, its number copied; 0 when it is something else. */
static size_t find_number(const struct parser *p, size_t i, char ret_number[NUMBER_MAX + 1])
{
    const struct codepoint *c = p->points.items;
    size_t end = p->points.count, n = 0, digits = 0;

    i = skip_blanks(p, i + 1);
    if (i < end && (c[i].c == '+' || c[i].c == '-'))
        ret_number[n++] = (char)c[i++].c;
    for (; i < end && is_digit_or_dot(c[i].c); i++, digits++)
        if (n < NUMBER_MAX) /* the value is refused or decided long before */
            ret_number[n++] = (char)c[i].c;
    ret_number[n] = '\0';
    i = skip_blanks(p, i);
    return digits > 0 && i < end && c[i].c == ')' ? i + 1 : 0;
}

/* A number that closes a round bracket. */
static int close_with(struct parser *p, const char *number, size_t at)
{
    char *end = NULL;
    double factor = strtod(number, &end);

    if (end == number || *end)
        return fault_set(p->f, -EINVAL, "the weight at byte %u is no number",
                         p->points.items[at].at);
    if (!(fabs(factor) <= EMPHASIS_MAX))
        return fault_set(p->f, -EINVAL, "the weight at byte %u is %.4g, beyond %g",
                         p->points.items[at].at, factor, EMPHASIS_MAX);
    multiply(p, p->round.items[--p->round.count], factor);
    return 0;
}

static int colon(struct parser *p, size_t *i)
{
    char number[NUMBER_MAX + 1];
    size_t start = *i, end = find_number(p, start, number);

    *i = end ? end : start + 1;
    if (end && p->round.count > 0)
        return close_with(p, number, start);
    return add_text(p, start, *i);
}

static int backslash(struct parser *p, size_t *i)
{
    size_t next = *i + 1;
    bool is_escape = next < p->points.count && is_syntax(p->points.items[next].c) &&
                     p->points.items[next].c != ':';

    *i = next + is_escape;
    return add_part(p, next, *i);
}

static int open_bracket(struct parser *p, uint32_t c)
{
    size_t *place = c == '(' ? array_push(&p->round) : array_push(&p->square);

    if (!place)
        return out_of_memory(p);
    *place = p->out.parts.count;
    return 0;
}

static int close_bracket(struct parser *p, uint32_t c, size_t at)
{
    if (c == ')' && p->round.count > 0)
        multiply(p, p->round.items[--p->round.count], ROUND);
    else if (c == ']' && p->square.count > 0)
        multiply(p, p->square.items[--p->square.count], SQUARE);
    else
        return add_part(p, at, at + 1);
    return 0;
}

static int parse_one(struct parser *p, size_t *i)
{
    const struct codepoint *c = p->points.items;
    size_t start = *i;

    switch (c[start].c) {
    case '\\':
        return backslash(p, i);
    case ':':
        return colon(p, i);
    case '(':
    case '[':
        (*i)++;
        return open_bracket(p, c[start].c);
    case ')':
    case ']':
        (*i)++;
        return close_bracket(p, c[start].c, start);
    default:
        while (*i < p->points.count && !is_syntax(c[*i].c))
            (*i)++;
        return add_text(p, start, *i);
    }
}

static int parse_all(struct parser *p)
{
    size_t i = 0;
    int r = 0;

    if (!(p->flags & EMPHASIS_BRACKETS))
        return add_text(p, 0, p->points.count);
    while (i < p->points.count && r == 0)
        r = parse_one(p, &i);
    while (p->round.count > 0 && r == 0)
        multiply(p, p->round.items[--p->round.count], ROUND);
    while (p->square.count > 0 && r == 0)
        multiply(p, p->square.items[--p->square.count], SQUARE);
    if (r == 0 && p->out.parts.count == 0) /* nothing but brackets: one empty part */
        r = add_part(p, 0, 0);
    return r;
}

/* --- the result ------------------------------------------------------------------------------- */

static void join(struct emphasis *e)
{
    size_t n = 0;

    for (size_t i = 0; i < e->parts.count; i++) {
        struct emphasis_part *last = n ? &e->parts.items[n - 1] : NULL;
        const struct emphasis_part part = e->parts.items[i];
        if (last && !last->is_break && !part.is_break && last->weight == part.weight)
            last->count += part.count;
        else
            e->parts.items[n++] = part;
    }
    e->parts.count = n;
}

static int check_weights(const struct parser *p)
{
    for (size_t i = 0; i < p->out.parts.count; i++) {
        const struct emphasis_part *part = &p->out.parts.items[i];
        if (!part->is_break && !(fabs(part->weight) <= EMPHASIS_MAX))
            return fault_set(p->f, -EINVAL, "the text at byte %u has the weight %.4g, beyond %g",
                             part->at, part->weight, EMPHASIS_MAX);
    }
    return 0;
}

int emphasis_parse(const char *text, size_t length, unsigned flags, struct emphasis *ret_emphasis,
                   struct fault *f)
{
    _cleanup_(parser_done) struct parser p = {.length = (uint32_t)length, .flags = flags, .f = f};
    size_t bad = 0;

    if (length > INT32_MAX)
        return fault_set(f, -EFBIG, "text of %zu bytes is too long", length);
    int r = codepoints_decode(&p.points, text, length, &bad);
    if (r == -EILSEQ)
        return fault_set(f, r, "text is not UTF-8 at byte %zu", bad);
    if (r < 0 || array_reserve(&p.out.points, p.points.count) < 0)
        return out_of_memory(&p);
    r = parse_all(&p);
    if (r < 0)
        return r;
    join(&p.out);
    r = check_weights(&p);
    if (r < 0)
        return r;
    *ret_emphasis = p.out;
    p.out = (struct emphasis){0};
    return 0;
}

void emphasis_done(struct emphasis *e)
{
    array_done(&e->points);
    array_done(&e->parts);
}
