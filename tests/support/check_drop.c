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

/* "NAME.txt" is also "NAME~2.txt": collisions are numbered. */
static bool is_same(const char *name, const char *wanted)
{
    size_t stem = strlen(wanted);
    const char *dot = strrchr(wanted, '.');

    if (strcmp(name, wanted) == 0)
        return true;
    if (dot)
        stem = (size_t)(dot - wanted);
    if (strncmp(name, wanted, stem) != 0 || name[stem] != '~')
        return false;
    size_t digits = strspn(name + stem + 1, "0123456789");
    return digits > 0 && strcmp(name + stem + 1 + digits, wanted + stem) == 0;
}

/* The end of a ticket is told once: NAME.json, or NAME.error.txt. */
static void check_end(struct check *check, const char *wanted)
{
    const char *dot = strrchr(wanted, '.');
    int stem = dot ? (int)(dot - wanted) : (int)strlen(wanted);
    char done[CHECK_NAME_SIZE], failed[CHECK_NAME_SIZE];
    unsigned ends = 0;

    (void)snprintf(done, sizeof done, "%.*s.json", stem, wanted);
    (void)snprintf(failed, sizeof failed, "%.*s.error.txt", stem, wanted);
    for (size_t i = 0; i < found.count; i++) {
        const char *name = strrchr(found.items[i], '/') + 1;
        ends += is_same(name, done) || strcmp(name, failed) == 0;
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
