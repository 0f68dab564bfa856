/* powercut_record — a scenario's file system calls as changes of a tree of nodes. */
#pragma once

#include "tests/support/spool_steps.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#define POWERCUT_NAME 64
#define POWERCUT_ROOT 0u /* the node of the scratch folder */

enum powercut_kind {
    POWERCUT_SET,   /* name of directory -> node, and what `from` says goes */
    POWERCUT_CLEAR, /* the name goes */
    POWERCUT_DATA,  /* the node's content, whole, after a write or a cut */
    POWERCUT_SYNC,  /* of a file or directory */
};

struct powercut_change {
    enum powercut_kind kind;
    unsigned node;
    unsigned directory, from; /* from: directory a rename took it out of; == UINT_MAX: none */
    char name[POWERCUT_NAME], from_name[POWERCUT_NAME];
    char *data;
    size_t size;
    size_t told; /* length of the history when the call was made */
    char call[24];
};

struct powercut_link {
    unsigned directory, node;
    char name[POWERCUT_NAME];
};

struct powercut_links ARRAY(struct powercut_link);

struct powercut_record {
    const char *folder;
    size_t told; /* length of the whole history */
    struct ARRAY(struct powercut_change) changes;
    struct ARRAY(bool) nodes;           /* whether it is a directory */
    struct powercut_links first, links; /* when it began, and now */
    struct steps_shared *shared;
    bool has_begun, is_broken; /* broken: a call that is not understood */
};

/* decide() of tests/support/inject.h: writes down, lets go. */
int powercut_on_call(const struct inject_call *call, void *record);
void powercut_record_done(struct powercut_record *record);

/* One change on a list of links. */
void powercut_apply(struct powercut_links *links, const struct powercut_change *change);
const struct powercut_link *powercut_find(const struct powercut_links *links, unsigned directory,
                                          const char *name);
