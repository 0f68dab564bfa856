#include "tests/support/knobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char prefix[] = "DIFFUSED_FAKE_";

void knobs_clear(void)
{
    char name[128];

    for (char **at = environ; *at;) {
        if (strncmp(*at, prefix, sizeof prefix - 1) != 0) {
            at++;
            continue;
        }
        (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(*at, "="), *at);
        (void)unsetenv(name); /* the next one comes into its place */
    }
}
