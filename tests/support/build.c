#include "tests/support/build.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void build_path(const char *name, char *ret_path, size_t size)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    ret_path[0] = '\0';
    if (n < 0)
        return;
    self[n] = '\0';
    for (int up = 0; up < 3; up++) { /* the program, its folder, tests/ */
        char *slash = strrchr(self, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
    if (snprintf(ret_path, size, "%s/%s", self, name) >= (int)size)
        ret_path[0] = '\0';
}
