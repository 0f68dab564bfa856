/* diffusectl-model — model directories on disk: what belongs to one, its hashes, and where models
 * come from. Functions of this header say nothing: 0 or -errno and a fault that names the file.
 *
 * A model is flat: files at the top and in the folders tokenizer, text_encoder, unet, vae,
 * scheduler, safety_checker, feature_extractor, nothing below. SHA256SUMS at the top is
 * sha256sum(1)'s: "HEX  PATH" a line, sorted here. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "vk/base/array.h"
#include "vk/base/fault.h"
#include "vk/base/sha256.h"

#define MODEL_ROOT      "/var/lib/diffused/models"
#define MODEL_SUMS      "SHA256SUMS"
#define MODEL_PATH_MAX  128u          /* bytes of a file's path within the model, with the NUL */
#define MODEL_FILES_MAX 512u          /* files of a model */
#define MODEL_BYTES_MAX (64ull << 30) /* of all files, as unpacked */

enum model_fate {
    MODEL_COPY,
    MODEL_SUMS_FILE, /* SHA256SUMS itself */
    MODEL_SKIP,      /* no part of a model: left where it is */
    MODEL_PICKLE,    /* never read, never copied: it could hold a program */
};

/* What becomes of a file, by its path alone. Pure. */
enum model_fate model_judge(const char *path);

/* Whether `name` may name a model, or a part of its path: letters, digits, "._+-", no dot first. */
bool model_is_plain_name(const char *name);

/* --- hashes ----------------------------------------------------------------------------------- */

struct model_sum {
    char path[MODEL_PATH_MAX];
    char hex[SHA256_HEX_SIZE];
    bool seen; /* the caller's */
};

struct model_sums {
    struct ARRAY(struct model_sum) list;
};

void model_sums_done(struct model_sums *sums);
/* -E2BIG when there are too many, -ENOMEM. */
int model_sums_add(struct model_sums *sums, const char *path, const char *hex, struct fault *f);
struct model_sum *model_sums_find(struct model_sums *sums, const char *path);

/* The text of SHA256SUMS. parse: faults name the line; hex digits of either case, paths may begin
 * with "./", only files that belong to a model are kept. format: malloc'd, sorted; NULL: no memory.
 * Pure. */
int model_sums_parse(const char *text, struct model_sums *ret_sums, struct fault *f);
char *model_sums_format(struct model_sums *sums);
/* -ENOENT when the model has none. */
int model_sums_read(int directory, struct model_sums *ret_sums, struct fault *f);

/* --- sources ---------------------------------------------------------------------------------- */

/* A file on its way: `read` gives its bytes in order, 0 at the end, or -errno and a fault. */
struct model_file {
    const char *path;
    uint64_t size;
    enum model_fate fate;
    const struct stat *st; /* NULL: from an archive */
    int64_t (*read)(void *reader, void *data, size_t size, struct fault *f);
    void *reader;
};

/* Negative: ends the walk. */
typedef int model_visit_t(const struct model_file *file, void *userdata, struct fault *f);

/* Visits the files of a model's directory. Refused by name: links, devices, pipes and the like. */
int model_walk(int directory, model_visit_t *visit, void *userdata, struct fault *f);

/* Visits those of a tar archive (plain, gzip, zstd, xz); the model may stand in one folder of it.
 * Refused by name: links and other odd entries, absolute paths, "..". */
int model_walk_archive(const char *path, model_visit_t *visit, void *userdata, struct fault *f);

/* The hash of what `read` gives. -ESTALE when there are more or fewer bytes than `size`. */
int model_hash_file(const struct model_file *file, char ret_hex[SHA256_HEX_SIZE], struct fault *f);

/* --- install ---------------------------------------------------------------------------------- */

struct model_install {
    const char *source; /* directory or archive */
    const char *models; /* where models are kept */
    const char *name;   /* the new one's */
    bool replaces;      /* one of that name may be there */
    /* out: */
    uint64_t bytes;
    unsigned files;
    bool is_verified; /* against the source's own SHA256SUMS */
};

/* Copies a model into place, whole or not at all. -EEXIST: one of that name is there. */
int model_install(struct model_install *install, struct fault *f);

/* --- examine ---------------------------------------------------------------------------------- */

enum model_examine {
    MODEL_EXAMINE_NAMES,  /* whether the files are those of SHA256SUMS */
    MODEL_EXAMINE_HASHES, /* and their content, too: reads all of it */
};

struct model_report {
    unsigned files;
    uint64_t bytes;
    bool has_sums;
    struct ARRAY(char *) problems; /* "unet/config.json: damaged" */
};

/* What is wrong with an installed model is in the report; a fault is what keeps from looking. */
int model_examine(int directory, enum model_examine how, struct model_report *ret_report,
                  struct fault *f);
void model_report_done(struct model_report *report);
