/* Invariant 3: a file that was dropped is in exactly one place of the folder. */
#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/check_internal.h"

/* nftw() has no userdata: the names of all files below the folder, one walk each. */
static struct ARRAY(char *) found;

static int on_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)ftw;
    if (type != FTW_F && type != FTW_SL)
        return 0;
    char **slot = array_push(&found);
    if (!slot || !(*slot = strdup(path)))
        return -1;
    return 0;
}

/* Stem and end, with "~2" between them perhaps: collisions are numbered. */
static bool is_variant(const char *name, const char *stem, size_t length, const char *end)
{
    size_t digits = 0;

    if (strncmp(name, stem, length) != 0)
        return false;
    name += length;
    if (*name == '~') {
        digits = strspn(name + 1, "0123456789");
        name += digits > 0 ? digits + 1 : 0;
    }
    return strcmp(name, end) == 0;
}

/* "NAME.txt" is also "NAME~2.txt". */
static bool is_same(const char *name, const char *wanted)
{
    const char *dot = strrchr(wanted, '.'), *end = dot ? dot : wanted + strlen(wanted);

    return is_variant(name, wanted, (size_t)(end - wanted), end);
}

/* The end of a ticket is told once: NAME.json, or NAME.error.txt. */
static void check_end(struct check *check, const char *wanted)
{
    const char *dot = strrchr(wanted, '.');
    size_t stem = dot ? (size_t)(dot - wanted) : strlen(wanted);
    unsigned ends = 0;

    for (size_t i = 0; i < found.count; i++) {
        const char *name = strrchr(found.items[i], '/') + 1;
        ends +=
            is_variant(name, wanted, stem, ".json") || is_variant(name, wanted, stem, ".error.txt");
    }
    if (ends != 1)
        check_violation(check, "dropped %s: has %u ends", wanted, ends);
}

static void check_name(struct check *check, const char *folder, const char *wanted)
{
    char first[CHECK_NAME_SIZE] = "";
    unsigned places = 0;

    for (size_t i = 0; i < found.count; i++) {
        if (!is_same(strrchr(found.items[i], '/') + 1, wanted))
            continue;
        const char *below = found.items[i] + strlen(folder);
        if (places++ > 0)
            check_violation(check, "dropped %s: at %s and at %s", wanted, first, below);
        (void)snprintf(first, sizeof first, "%s", below);
    }
    if (places == 0)
        check_violation(check, "dropped %s: lost", wanted);
    if (!(check->options->flags & CHECK_DRAINED))
        return;
    if (strncmp(first, "/done/", 6) != 0 && strncmp(first, "/failed/", 8) != 0)
        check_violation(check, "dropped %s: is still at %s", wanted, first);
    check_end(check, wanted);
}

void check_drop(struct check *check, const char *path, const char *history)
{
    static const char word[] = "DROPPED ";
    char name[CHECK_NAME_SIZE];

    if (nftw(path, on_file, 16, FTW_PHYS) != 0)
        check_violation(check, "%s: %s", path, strerror(errno));
    for (const char *line = history; *line;) {
        const char *end = strchrnul(line, '\n');
        size_t length = (size_t)(end - line), skip = sizeof word - 1;
        if (length > skip && strncmp(line, word, skip) == 0) {
            (void)snprintf(name, sizeof name, "%.*s", (int)(length - skip), line + skip);
            check_name(check, path, name);
        }
        line = *end ? end + 1 : end;
    }
    for (size_t i = 0; i < found.count; i++)
        free(found.items[i]);
    array_done(&found);
}
