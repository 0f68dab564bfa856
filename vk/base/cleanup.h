/* cleanup — ownership in one word.
 *
 * _cleanup_(x_freep) runs x_freep(&variable) when the variable leaves its scope; TAKE_PTR gives the
 * value away and leaves NULL (TAKE_FD: -1) behind. DEFINE_FREEP builds the "p" function from a
 * destructor that accepts NULL. */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(function) __attribute__((cleanup(function)))

#define TAKE_PTR(pointer)                                                                          \
    __extension__({                                                                                \
        __typeof__(pointer) take_ptr_ = (pointer);                                                 \
        (pointer) = NULL;                                                                          \
        take_ptr_;                                                                                 \
    })

#define TAKE_FD(fd)                                                                                \
    __extension__({                                                                                \
        int take_fd_ = (fd);                                                                       \
        (fd) = -1;                                                                                 \
        take_fd_;                                                                                  \
    })

#define DEFINE_FREEP(type, destructor)                                                             \
    static inline void destructor##p(type *pointer)                                                \
    {                                                                                              \
        (void)destructor(*pointer);                                                                \
    }

/* Frees what the pointer points to; for any malloc'd variable. */
static inline void freep(void *pointer)
{
    free(*(void **)pointer);
}

/* Closes a descriptor >= 0. The error of close is of no use here: writers fsync before. */
static inline void closep(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

static inline void fclosep(FILE **file)
{
    if (*file)
        (void)fclose(*file);
}

static inline void closedirp(DIR **directory)
{
    if (*directory)
        (void)closedir(*directory);
}

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
