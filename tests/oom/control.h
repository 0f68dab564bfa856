/* control — what a test and the allocator of shim.c say to each other: a page in a file both have
 * mapped (OOM_CONTROL names it), so that a test may arm the allocator of a running daemon. */
#pragma once

#include <stdint.h>

#define OOM_ENVIRONMENT "OOM_CONTROL"
#define OOM_PROGRAM     "OOM_PROGRAM" /* only the program of this name; its children inherit all */
#define OOM_FRAMES      24

/* By whose order memory is asked for: the first caller outside the C library. */
enum oom_party {
    OOM_PARTY_OURS,    /* the program, jansson, inih, utf8proc, libpng */
    OOM_PARTY_SYSTEMD, /* libsystemd */
    OOM_PARTY_OTHERS,  /* drivers, the loader, sanitizers */
};

/* Written by the test while it is not armed, but for `armed` itself. */
struct oom_control {
    uint32_t is_loaded; /* by the shim: it is there */
    uint32_t armed;     /* by the test: count, and let fail */
    uint32_t parties;   /* bits of enum oom_party that are counted */
    uint32_t sticky;    /* 1: the n-th and all after it fail; 0: the n-th alone */
    uint64_t fail_at;   /* n, from 1; 0: none fails */
    uint64_t count;     /* by the shim: asked for so far while armed */
    uint64_t failed;    /* by the shim: refused so far */
    int64_t live;       /* by the shim: blocks in use, armed or not */
    uint32_t party;     /* by the shim: of the first refusal, and its callers */
    uint32_t frame_count;
    uint64_t frames[OOM_FRAMES]; /* offsets within the program; 0: not in it */
};
