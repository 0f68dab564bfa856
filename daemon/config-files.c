/* Which drop-ins there are: names over all directories, sorted, each from the last directory that
 * has it. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "daemon/config-internal.h"
#include "vk/base/file.h"

static const char *base_name(const char *path)
{
    return strrchr(path, '/') + 1;
}

static bool is_dropin_name(const char *name)
{
    size_t n = strlen(name);

    return name[0] != '.' && n > strlen(".conf") &&
           strcmp(name + n - strlen(".conf"), ".conf") == 0;
}

/* A link to /dev/null hides the files of its name in earlier directories. */
static bool is_mask(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

/* Puts the file in its place, over another of the same name. */
static int add_file(struct config_files *files, const char *path)
{
    size_t at = 0;
    int order = 1;

    while (at < files->count && (order = strcmp(base_name(files->paths[at]), base_name(path))) < 0)
        at++;
    bool is_new = at == files->count || order != 0;
    if (is_new && files->count == CONFIG_FILES_MAX)
        return -E2BIG;
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    if (is_new) {
        memmove(&files->paths[at + 1], &files->paths[at],
                (files->count - at) * sizeof files->paths[0]);
        files->count++;
    } else {
        free(files->paths[at]);
    }
    files->paths[at] = copy;
    return 0;
}

static int add_directory(struct config_files *files, const char *directory, struct fault *f)
{
    _cleanup_(closedirp) DIR *d = opendir(directory);
    char path[PATH_MAX];
    int r = 0;

    if (!d && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (!d)
        return fault_set(f, -errno, "%s: %s", directory, strerror(errno));
    errno = 0;
    for (const struct dirent *e; r == 0 && (e = readdir(d));) {
        if (!is_dropin_name(e->d_name))
            continue;
        r = file_path(path, f, "%s/%s", directory, e->d_name);
        if (r < 0)
            return r;
        r = add_file(files, path);
        errno = 0;
    }
    if (r == 0 && errno)
        return fault_set(f, -errno, "%s: %s", directory, strerror(errno));
    if (r == -E2BIG)
        return fault_set(f, -EINVAL, "%s: more than %u drop-ins", directory, CONFIG_FILES_MAX);
    return r < 0 ? fault_set(f, r, "out of memory") : 0;
}

static void drop_masked(struct config_files *files)
{
    size_t kept = 0;

    for (size_t i = 0; i < files->count; i++) {
        if (is_mask(files->paths[i]))
            free(files->paths[i]);
        else
            files->paths[kept++] = files->paths[i];
    }
    files->count = kept;
}

int config_find_dropins_in(const char *const *directories, size_t count,
                           struct config_files *ret_files, struct fault *f)
{
    struct config_files files = {0};

    for (size_t i = 0; i < count; i++) {
        int r = add_directory(&files, directories[i], f);
        if (r < 0) {
            config_files_done(&files);
            return r;
        }
    }
    drop_masked(&files);
    *ret_files = files;
    return 0;
}

int config_find_dropins(const char *file, struct config_files *ret_files, struct fault *f)
{
    static const char *const installed[] = {"/usr/lib/diffused/diffused.conf.d",
                                            "/run/diffused/diffused.conf.d", CONFIG_FILE ".d"};
    char beside[PATH_MAX];
    const char *const one[] = {beside};

    if (strcmp(file, CONFIG_FILE) == 0)
        return config_find_dropins_in(installed, ARRAY_SIZE(installed), ret_files, f);
    int r = file_path(beside, f, "%s.d", file);
    return r < 0 ? r : config_find_dropins_in(one, 1, ret_files, f);
}

void config_files_done(struct config_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->paths[i]);
    *files = (struct config_files){0};
}
