/* What belongs to a model, its SHA256SUMS, and the walk over its directory. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dbus/diffusectl-model.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define SUMS_BYTES_MAX (256u << 10)
#define CHUNK          (1u << 20)

static const char *const folders[] = {
    "tokenizer",      "text_encoder",      "unet",  "vae",       "scheduler",
    "safety_checker", "feature_extractor", "taesd", "embeddings"};

/* --- by name ---------------------------------------------------------------------------------- */

static bool ends_with_one(const char *text, const char *const *endings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (file_has_ending(text, endings[i]))
            return true;
    }
    return false;
}

bool model_is_plain_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-");

    return n > 0 && !name[n] && name[0] != '.' && n < MODEL_PATH_MAX / 2;
}

static bool is_folder(const char *name, size_t length)
{
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        if (strlen(folders[i]) == length && strncmp(folders[i], name, length) == 0)
            return true;
    }
    return false;
}

enum model_fate model_judge(const char *path)
{
    static const char *const at_top[] = {"model_index.json", "model.json", ".safetensors", ".md",
                                         ".txt"};
    static const char *const parts[] = {".json", ".txt", ".safetensors"};
    const char *slash = strchr(path, '/');

    if (slash && (strchr(slash + 1, '/') || !is_folder(path, (size_t)(slash - path))))
        return MODEL_SKIP;
    if (strcmp(path, MODEL_SUMS) == 0)
        return MODEL_SUMS_FILE;
    if (!model_is_plain_name(slash ? slash + 1 : path))
        return MODEL_SKIP;
    if (file_is_pickle(path))
        return MODEL_PICKLE;
    if (slash)
        return ends_with_one(path, parts, ARRAY_SIZE(parts)) ? MODEL_COPY : MODEL_SKIP;
    bool is_notice = strncmp(path, "LICENSE", 7) == 0 || strncmp(path, "NOTICE", 6) == 0;
    return is_notice || ends_with_one(path, at_top, ARRAY_SIZE(at_top)) ? MODEL_COPY : MODEL_SKIP;
}

/* --- hashes ----------------------------------------------------------------------------------- */

void model_sums_done(struct model_sums *sums)
{
    array_done(&sums->list);
}

int model_sums_add(struct model_sums *sums, const char *path, const char *hex, struct fault *f)
{
    if (sums->list.count >= MODEL_FILES_MAX)
        return fault_set(f, -E2BIG, "%s: more than %u files", path, MODEL_FILES_MAX);
    struct model_sum *sum = array_push(&sums->list);
    if (!sum)
        return fault_set(f, -ENOMEM, "out of memory");
    *sum = (struct model_sum){0};
    (void)snprintf(sum->path, sizeof sum->path, "%s", path); /* judged: it fits */
    for (size_t i = 0; i < SHA256_HEX_SIZE - 1; i++)
        sum->hex[i] = (char)tolower((unsigned char)hex[i]);
    return 0;
}

struct model_sum *model_sums_find(struct model_sums *sums, const char *path)
{
    for (size_t i = 0; i < sums->list.count; i++) {
        if (strcmp(sums->list.items[i].path, path) == 0)
            return &sums->list.items[i];
    }
    return NULL;
}

/* "HEX  PATH" or "HEX *PATH", without its line end. */
static int parse_line(char *line, unsigned number, struct model_sums *sums, struct fault *f)
{
    const size_t digits = SHA256_HEX_SIZE - 1;
    const char *path = line + digits + 2;

    if (strspn(line, "0123456789abcdefABCDEF") != digits || line[digits] != ' ' ||
        (line[digits + 1] != ' ' && line[digits + 1] != '*') || !*path)
        return fault_set(f, -EINVAL, MODEL_SUMS ":%u: not a line of sha256sum", number);
    if (strncmp(path, "./", 2) == 0)
        path += 2;
    if (model_judge(path) != MODEL_COPY)
        return 0;
    if (model_sums_find(sums, path))
        return fault_set(f, -EINVAL, MODEL_SUMS ":%u: %s a second time", number, path);
    return model_sums_add(sums, path, line, f);
}

int model_sums_parse(const char *text, struct model_sums *ret_sums, struct fault *f)
{
    _cleanup_(model_sums_done) struct model_sums sums = {0};
    _cleanup_(freep) char *copy = strdup(text);
    unsigned number = 0;

    if (!copy)
        return fault_set(f, -ENOMEM, "out of memory");
    for (char *line = copy, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        size_t n = strlen(line);
        if (n > 0 && line[n - 1] == '\r')
            line[n - 1] = '\0';
        number++;
        int r = *line ? parse_line(line, number, &sums, f) : 0;
        if (r < 0)
            return r;
    }
    *ret_sums = sums;
    sums = (struct model_sums){0};
    return 0;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(((const struct model_sum *)a)->path, ((const struct model_sum *)b)->path);
}

char *model_sums_format(struct model_sums *sums)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return NULL;
    if (sums->list.count > 0)
        qsort(sums->list.items, sums->list.count, sizeof sums->list.items[0], compare_paths);
    for (size_t i = 0; i < sums->list.count; i++)
        (void)fprintf(to, "%s  %s\n", sums->list.items[i].hex, sums->list.items[i].path);
    if (fclose(to) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* --- a directory ------------------------------------------------------------------------------ */

struct reader {
    int fd;
    const char *path;
};

static int64_t read_file(void *reader, void *data, size_t size, struct fault *f)
{
    const struct reader *from = reader;
    ssize_t n = read(from->fd, data, size);

    return n < 0 ? fault_set(f, -errno, "%s: %s", from->path, strerror(errno)) : n;
}

/* What something that is neither file nor directory is, and what to do about it. */
static int refuse_odd(const char *path, mode_t mode, struct fault *f)
{
    return fault_set(f, -EINVAL, "%s: %s", path,
                     S_ISLNK(mode)   ? "a symbolic link; copy the model with cp -rL first"
                     : S_ISDIR(mode) ? "a directory, where a file belongs"
                                     : "neither a file nor a directory");
}

static int visit_file(int directory, const char *name, const char *path, model_visit_t *visit,
                      void *userdata, struct fault *f)
{
    struct stat st;
    _cleanup_(closep) int fd =
        openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        return fault_set(f, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return refuse_odd(path, st.st_mode, f);
    struct reader reader = {fd, path};
    const struct model_file file = {.path = path,
                                    .size = (uint64_t)st.st_size,
                                    .fate = model_judge(path),
                                    .st = &st,
                                    .read = read_file,
                                    .reader = &reader};
    return visit(&file, userdata, f);
}

/* One entry of the top ("" as folder) or of a folder; hidden ones and strangers are passed by. */
static int walk_entry(int directory, const char *folder, const char *name, model_visit_t *visit,
                      void *userdata, struct fault *f)
{
    char path[MODEL_PATH_MAX];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", name);

    if (name[0] == '.' || n >= (int)sizeof path)
        return 0;
    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fault_set(f, -errno, "%s: %s", path, strerror(errno));
    bool is_ours = *folder || is_folder(name, strlen(name)) || model_judge(path) != MODEL_SKIP;
    if (S_ISREG(st.st_mode))
        return visit_file(directory, name, path, visit, userdata, f);
    if (S_ISDIR(st.st_mode) && (*folder || model_judge(path) == MODEL_SKIP))
        return 0; /* a folder of ours has its turn, others are not looked into */
    return is_ours ? refuse_odd(path, st.st_mode, f) : 0;
}

static int walk_folder(int model, const char *folder, model_visit_t *visit, void *userdata,
                       struct fault *f)
{
    int fd = openat(model, *folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    const struct dirent *entry;
    int r = 0;

    if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENOTDIR) && *folder)
        return 0; /* what is no folder has been refused at the top */
    _cleanup_(closedirp) DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        r = fault_set(f, -errno, "%s: %s", *folder ? folder : "the directory", strerror(errno));
        closep(&fd);
        return r;
    }
    while (r >= 0 && (errno = 0, entry = readdir(directory)))
        r = walk_entry(fd, folder, entry->d_name, visit, userdata, f);
    if (r >= 0 && errno)
        r = fault_set(f, -errno, "%s: %s", *folder ? folder : "the directory", strerror(errno));
    return r;
}

int model_walk(int directory, model_visit_t *visit, void *userdata, struct fault *f)
{
    int r = walk_folder(directory, "", visit, userdata, f);

    for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(folders); i++)
        r = walk_folder(directory, folders[i], visit, userdata, f);
    return r;
}

/* --- content ---------------------------------------------------------------------------------- */

int model_hash_file(const struct model_file *file, char ret_hex[SHA256_HEX_SIZE], struct fault *f)
{
    _cleanup_(freep) char *chunk = malloc(CHUNK);
    uint8_t digest[SHA256_SIZE];
    struct sha256 sum;
    uint64_t total = 0;
    int64_t n;

    if (!chunk)
        return fault_set(f, -ENOMEM, "out of memory");
    sha256_init(&sum);
    while ((n = file->read(file->reader, chunk, CHUNK, f)) > 0) {
        sha256_feed(&sum, chunk, (size_t)n);
        total += (uint64_t)n;
    }
    if (n < 0)
        return (int)n;
    if (total != file->size)
        return fault_set(f, -ESTALE, "%s: changes while it is read", file->path);
    sha256_finish(&sum, digest);
    sha256_format(digest, ret_hex);
    return 0;
}

int model_sums_read(int directory, struct model_sums *ret_sums, struct fault *f)
{
    _cleanup_(freep) char *text = malloc(SUMS_BYTES_MAX + 1);
    _cleanup_(closep) int fd =
        openat(directory, MODEL_SUMS, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    size_t size = 0;
    ssize_t n;

    if (fd < 0)
        return fault_set(f, -errno, MODEL_SUMS ": %s", strerror(errno));
    if (!text)
        return fault_set(f, -ENOMEM, "out of memory");
    while (size <= SUMS_BYTES_MAX && (n = read(fd, text + size, SUMS_BYTES_MAX + 1 - size)) != 0) {
        if (n < 0)
            return fault_set(f, -errno, MODEL_SUMS ": %s", strerror(errno));
        size += (size_t)n;
    }
    if (size > SUMS_BYTES_MAX)
        return fault_set(f, -EFBIG, MODEL_SUMS ": longer than %u bytes", SUMS_BYTES_MAX);
    text[size] = '\0';
    return model_sums_parse(text, ret_sums, f);
}
