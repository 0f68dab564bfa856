/* array — a growing array of any element type.
 *
 *     struct ARRAY(struct node) nodes = {0};
 *     struct node *n = array_push(&nodes);      zeroed, NULL when out of memory
 *     for (size_t i = 0; i < nodes.count; i++) use(&nodes.items[i]);
 *     array_done(&nodes);
 *
 * Pointers to elements are valid until the next push. */
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY(type)                                                                                \
    {                                                                                              \
        type *items;                                                                               \
        size_t count;                                                                              \
        size_t capacity;                                                                           \
    }

/* Makes room for one more. Returns 0, or -1 with the array untouched. Used through array_push. */
static inline int array_grow(void **items, size_t *capacity, size_t count, size_t size)
{
    if (count < *capacity)
        return 0;
    size_t wanted = *capacity ? *capacity * 2 : 16;
    void *grown = reallocarray(*items, wanted, size);
    if (!grown)
        return -1;
    *items = grown;
    *capacity = wanted;
    return 0;
}

#define array_push(array)                                                                          \
    __extension__({                                                                                \
        __typeof__((array)->items) array_new_ = NULL;                                              \
        if (array_grow((void **)&(array)->items, &(array)->capacity, (array)->count,               \
                       sizeof *(array)->items) == 0) {                                             \
            array_new_ = &(array)->items[(array)->count++];                                        \
            memset(array_new_, 0, sizeof *array_new_);                                             \
        }                                                                                          \
        array_new_;                                                                                \
    })

/* Room for `more` elements beyond those there are: as many pushes cannot fail. 0 or -1. */
#define array_reserve(array, more)                                                                 \
    __extension__({                                                                                \
        size_t array_want_ = (array)->count + (more);                                              \
        int array_r_ = 0;                                                                          \
        if (array_want_ > (array)->capacity) {                                                     \
            void *array_p_ = reallocarray((array)->items, array_want_, sizeof *(array)->items);    \
            array_r_ = array_p_ ? 0 : -1;                                                          \
            if (array_p_) {                                                                        \
                (array)->items = array_p_;                                                         \
                (array)->capacity = array_want_;                                                   \
            }                                                                                      \
        }                                                                                          \
        array_r_;                                                                                  \
    })

#define array_done(array)                                                                          \
    do {                                                                                           \
        free((array)->items);                                                                      \
        (array)->items = NULL;                                                                     \
        (array)->count = (array)->capacity = 0;                                                    \
    } while (0)
