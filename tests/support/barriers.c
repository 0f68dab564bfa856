#include "tests/support/barriers.h"

static bool overlaps(const struct access *a, const struct access *b)
{
    if (a->buffer != b->buffer || (!a->is_write && !b->is_write))
        return false;
    uint64_t start = a->offset > b->offset ? a->offset : b->offset;
    uint64_t a_end = a->offset + a->size, b_end = b->offset + b->size;
    return start < (a_end < b_end ? a_end : b_end);
}

static bool conflict(const struct command *x, const struct command *y)
{
    for (uint32_t i = 0; i < x->access_count * y->access_count; i++) {
        if (overlaps(&x->access[i % x->access_count], &y->access[i / x->access_count]))
            return true;
    }
    return false;
}

uint32_t barriers_missing(const struct program *p, uint32_t *ret_first, uint32_t *ret_second)
{
    uint32_t missing = 0;

    for (uint32_t i = 0; i < p->count; i++) {
        if (p->commands[i].kind != COMMAND_LAUNCH)
            continue;
        for (uint32_t j = i + 1; j < p->count && p->commands[j].kind == COMMAND_LAUNCH; j++) {
            if (!conflict(&p->commands[i], &p->commands[j]))
                continue;
            if (missing++ == 0 && ret_first && ret_second) {
                *ret_first = i;
                *ret_second = j;
            }
        }
    }
    return missing;
}
