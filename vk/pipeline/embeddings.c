#include "vk/pipeline/embeddings.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/base/half.h"
#include "vk/base/json.h"
#include "vk/weights/safetensors.h"
#include "vk/weights/weights.h"

#define SUFFIX          ".safetensors"
#define VOCAB_BYTES_MAX (64u << 20)
#define WORD_SIZE       (SAFETENSORS_NAME_MAX + 1)

struct names ARRAY(char *);

struct reader {
    const char *directory; /* the model's */
    struct clip_bpe *tokenizer;
    json_t *vocab; /* vocab.json */
    struct embeddings out;
    struct names names; /* of the files */
};

static void reader_done(struct reader *r)
{
    for (size_t i = 0; i < r->names.count; i++)
        free(r->names.items[i]);
    array_done(&r->names);
    json_decref(r->vocab);
    embeddings_done(&r->out);
}

/* --- the folder ------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int take_name(struct reader *r, const char *name, struct fault *f)
{
    if (file_is_pickle(name))
        return fault_set(f, -EINVAL, "embeddings/%.120s: is a pickle: convert to safetensors",
                         name);
    if (name[0] == '.' || !file_has_ending(name, SUFFIX))
        return 0;
    if (r->names.count == EMBEDDINGS_FILES_MAX)
        return fault_set(f, -EFBIG, "embeddings: more than %u files", EMBEDDINGS_FILES_MAX);
    char **place = array_push(&r->names);
    if (place)
        *place = strdup(name);
    return place && *place ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

static int list_files(struct reader *r, struct fault *f)
{
    char path[PATH_MAX];
    int e = file_path(path, f, "%s/embeddings", r->directory);

    if (e < 0)
        return e;
    DIR *folder = opendir(path);
    if (!folder && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (!folder)
        return fault_set(f, file_error(errno), "embeddings: %s", strerror(errno));
    errno = 0;
    for (struct dirent *entry; e >= 0 && (entry = readdir(folder)); errno = 0)
        e = take_name(r, entry->d_name, f);
    if (e >= 0 && errno)
        e = fault_set(f, file_error(errno), "embeddings: %s", strerror(errno));
    (void)closedir(folder);       /* read only */
    if (e >= 0 && r->names.count) /* one may lack its name after an error */
        qsort(r->names.items, r->names.count, sizeof *r->names.items, by_name);
    return e;
}

/* --- one file --------------------------------------------------------------------------------- */

/* The file's tensor of vectors; and its word, a name or the file's stem, into ret_word. */
static const struct safetensors_tensor *find_tensor(const struct safetensors *file,
                                                    const char *name,
                                                    char ret_word[static WORD_SIZE])
{
    static const char *const known[] = {"emb_params", "string_to_param.*"};
    const struct safetensors_tensor *t = NULL;

    (void)snprintf(ret_word, WORD_SIZE, "%.*s", (int)(strlen(name) - strlen(SUFFIX)), name);
    for (size_t i = 0; i < ARRAY_SIZE(known) && !t; i++)
        t = safetensors_find(file, known[i]);
    if (t || safetensors_count(file) != 1)
        return t;
    t = safetensors_get(file, 0);
    (void)snprintf(ret_word, WORD_SIZE, "%s", t->name);
    return t;
}

static int check_shape(const struct embeddings *e, const struct safetensors *file,
                       const struct safetensors_tensor *t, struct fault *f)
{
    char found[SAFETENSORS_SHAPE_TEXT];
    uint64_t n = t->rank == 2 ? t->dims[0] : 1;
    bool is_float =
        t->dtype == SAFETENSORS_F16 || t->dtype == SAFETENSORS_BF16 || t->dtype == SAFETENSORS_F32;

    if (!is_float)
        return fault_set(f, -EINVAL, "%s: %.100s: want F16, BF16 or F32, file has %s",
                         safetensors_label(file), t->name, safetensors_dtype_to_string(t->dtype));
    if (t->rank < 1 || t->rank > 2 || t->dims[t->rank - 1] != e->c || n < 1 ||
        n > EMBEDDINGS_VECTORS_MAX)
        return fault_set(f, -EINVAL, "%s: %.100s: want [1…%u,%u], file has %.48s",
                         safetensors_label(file), t->name, EMBEDDINGS_VECTORS_MAX, e->c,
                         safetensors_format_shape(t->dims, t->rank, found));
    if (n > EMBEDDINGS_ROWS_MAX - e->rows)
        return fault_set(f, -EFBIG, "%s: more than %u vectors in all files",
                         safetensors_label(file), EMBEDDINGS_ROWS_MAX);
    return 0;
}

/* Appends the tensor's rows. */
static int read_rows(struct embeddings *e, struct safetensors *file,
                     const struct safetensors_tensor *t, struct fault *f)
{
    uint32_t n = t->rank == 2 ? (uint32_t)t->dims[0] : 1, padded = pad8(e->c);
    size_t count = (size_t)n * e->c;
    _cleanup_(freep) float *values = malloc(count * sizeof *values);
    uint16_t *grown = reallocarray(e->halves, e->rows + n, padded * sizeof *grown);

    if (grown)
        e->halves = grown;
    if (!grown || !values)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = safetensors_read_floats(file, t, 0, count, values, f);
    if (r >= 0)
        r = safetensors_check_unchanged(file, f);
    if (r < 0)
        return r;
    memset(e->halves + (size_t)e->rows * padded, 0, (size_t)n * padded * sizeof *grown);
    for (size_t i = 0; i < count; i++) {
        uint16_t half = half_from_float(values[i]);
        if (!isfinite(half_to_float(half)))
            return fault_set(f, -EINVAL, "%s: %.100s: element %zu is %g, beyond half precision",
                             safetensors_label(file), t->name, i, (double)values[i]);
        e->halves[(e->rows + i / e->c) * padded + i % e->c] = half;
    }
    e->rows += n;
    return 0;
}

static int read_vocab(struct reader *r, struct fault *f)
{
    char path[PATH_MAX];
    int e = file_path(path, f, "%s/tokenizer/vocab.json", r->directory);

    return e < 0 ? e : json_read_object(path, VOCAB_BYTES_MAX, &r->vocab, f);
}

/* The word and its ids, for rows that were just read. */
static int add_word(struct reader *r, const char *label, const char *word, uint32_t vectors,
                    struct fault *f)
{
    uint32_t first = 0;

    if (json_object_get(r->vocab, word))
        return fault_set(f, -EEXIST,
                         "%s: \"%.64s\" is in the tokenizer's vocabulary; give it another name",
                         label, word);
    int e = clip_bpe_add_word(r->tokenizer, word, vectors, &first, f);
    return e < 0 ? fault_prefix(f, e, "%s", label) : 0;
}

static int read_file(struct reader *r, const char *name, struct fault *f)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    char path[PATH_MAX], label[NAME_MAX + 16], word[WORD_SIZE];
    uint32_t rows = r->out.rows;

    (void)snprintf(label, sizeof label, "embeddings/%s", name);
    int e = file_path(path, f, "%s/%s", r->directory, label);
    if (e >= 0)
        e = safetensors_open(path, label, &file, f);
    if (e < 0)
        return e;
    if (!r->out.owner.err)
        (void)safetensors_check_owner(file, &r->out.owner); /* what follows is the caller's */
    const struct safetensors_tensor *t = find_tensor(file, name, word);
    if (!t)
        return fault_set(f, -EINVAL,
                         "%s: want emb_params, string_to_param.* or one tensor named by its word; "
                         "file has %zu others",
                         label, safetensors_count(file));
    e = check_shape(&r->out, file, t, f);
    if (e >= 0)
        e = read_rows(&r->out, file, t, f);
    return e < 0 ? e : add_word(r, label, word, r->out.rows - rows, f);
}

int embeddings_read(const char *model_directory, uint32_t c, struct clip_bpe *tokenizer,
                    struct embeddings *ret_embeddings, struct fault *f)
{
    _cleanup_(reader_done) struct reader r = {
        .directory = model_directory,
        .tokenizer = tokenizer,
        .out = {.c = c, .first = clip_bpe_vocab_size(tokenizer)}};
    int e = list_files(&r, f);

    if (e >= 0 && r.names.count)
        e = read_vocab(&r, f);
    for (size_t i = 0; i < r.names.count && e >= 0; i++)
        e = read_file(&r, r.names.items[i], f);
    if (e < 0)
        return e;
    *ret_embeddings = r.out;
    r.out = (struct embeddings){0};
    return 0;
}

void embeddings_done(struct embeddings *e)
{
    free(e->halves);
    *e = (struct embeddings){0};
}
