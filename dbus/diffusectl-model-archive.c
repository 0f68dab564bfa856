/* Models in tar archives, through libarchive: entries are judged by their names and kinds before a
 * byte of them is written anywhere, and only as files of a model. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>

#include "dbus/diffusectl-model.h"
#include "vk/base/cleanup.h"

#define BLOCK_BYTES (128u << 10)

struct walk {
    struct archive *archive;
    const char *path;            /* of the entry, for faults */
    char prefix[MODEL_PATH_MAX]; /* the folder that the model stands in; "" */
    bool has_prefix;             /* decided */
    uint64_t bytes;              /* of all entries so far */
};

static void free_archive(struct archive **a)
{
    if (*a)
        (void)archive_read_free(*a); /* nothing is written: no error of interest */
}

static int archive_fault(struct archive *a, const char *what, struct fault *f)
{
    const char *text = archive_error_string(a);
    int err = archive_errno(a);

    return fault_set(f, err > 0 && err < 4096 ? -err : -EINVAL, "%s: %s", what,
                     text ? text : "not an archive that can be read");
}

/* Whether a path stays below where it is unpacked. */
static bool is_safe(const char *path)
{
    if (path[0] == '/' || path[0] == '\0')
        return false;
    for (const char *p = path; *p; p += strcspn(p, "/"), p += strspn(p, "/")) {
        if (strcspn(p, "/") == 2 && strncmp(p, "..", 2) == 0)
            return false;
    }
    return true;
}

/* The entry's path within the model; NULL when it is outside of the folder the model stands in.
 * The first entry that tells decides which folder that is. */
static const char *inside(struct walk *w, const char *path)
{
    const char *slash = strchr(path, '/');

    if (w->has_prefix) {
        size_t n = strlen(w->prefix);
        return strncmp(path, w->prefix, n) == 0 ? path + n : NULL;
    }
    if (model_judge(path) == MODEL_COPY || model_judge(path) == MODEL_PICKLE ||
        model_judge(path) == MODEL_SUMS_FILE) {
        w->has_prefix = true;
        return path;
    }
    if (!slash || model_judge(slash + 1) == MODEL_SKIP ||
        (size_t)(slash + 1 - path) >= sizeof w->prefix)
        return NULL;
    (void)snprintf(w->prefix, sizeof w->prefix, "%.*s", (int)(slash + 1 - path), path);
    w->has_prefix = true;
    return slash + 1;
}

static int64_t read_entry(void *reader, void *data, size_t size, struct fault *f)
{
    struct walk *w = reader;
    la_ssize_t n = archive_read_data(w->archive, data, size);

    return n < 0 ? archive_fault(w->archive, w->path, f) : n;
}

static int visit_entry(struct walk *w, struct archive_entry *entry, model_visit_t *visit,
                       void *userdata, struct fault *f)
{
    const char *path = archive_entry_pathname(entry);

    if (!path || !is_safe(path))
        return fault_set(f, -EINVAL, "%s: a path that leaves the archive's folder",
                         path ? path : "an entry with a name that is no text");
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    bool is_file = archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry);
    if (archive_entry_filetype(entry) == AE_IFDIR)
        return 0;
    if (!is_file)
        return fault_set(f, -EINVAL, "%s: a link or device, only files can be installed", path);
    if (!archive_entry_size_is_set(entry) || archive_entry_size(entry) < 0)
        return fault_set(f, -EINVAL, "%s: its size is not known", path);
    uint64_t size = (uint64_t)archive_entry_size(entry);
    if (size > MODEL_BYTES_MAX - w->bytes)
        return fault_set(f, -EFBIG, "%s: more than %llu GiB", path, MODEL_BYTES_MAX >> 30);
    w->bytes += size;
    w->path = path;
    const char *within = inside(w, path);
    const struct model_file file = {.path = within ? within : path,
                                    .size = size,
                                    .fate = within ? model_judge(within) : MODEL_SKIP,
                                    .read = read_entry,
                                    .reader = w};
    return visit(&file, userdata, f);
}

/* Filters that are libraries: archive_read_support_filter_all() would run programs. */
static struct archive *new_archive(void)
{
    _cleanup_(free_archive) struct archive *a = archive_read_new();

    if (!a || archive_read_support_format_tar(a) != ARCHIVE_OK ||
        archive_read_support_filter_gzip(a) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(a) != ARCHIVE_OK ||
        archive_read_support_filter_xz(a) != ARCHIVE_OK)
        return NULL;
    return TAKE_PTR(a);
}

int model_walk_archive(const char *path, model_visit_t *visit, void *userdata, struct fault *f)
{
    _cleanup_(free_archive) struct archive *a = new_archive();
    struct walk w = {.archive = a};
    struct archive_entry *entry;
    int r = 0, got;

    if (!a)
        return fault_set(f, -ENOMEM, "libarchive: cannot read tar with gzip, zstd and xz");
    if (archive_read_open_filename(a, path, BLOCK_BYTES) != ARCHIVE_OK)
        return archive_fault(a, path, f);
    while (r >= 0 && (got = archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return archive_fault(a, path, f);
        r = visit_entry(&w, entry, visit, userdata, f);
    }
    return r;
}
