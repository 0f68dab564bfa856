#include "tests/support/folder.h"

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int folder_setup(void **state)
{
    const char *base = getenv("TMPDIR");
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/diffused-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(path))
        return -1;
    *state = strdup(path);
    return *state ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

int folder_teardown(void **state)
{
    int r = nftw(*state, remove_one, 16, FTW_DEPTH | FTW_PHYS);

    free(*state);
    *state = NULL;
    return r;
}
