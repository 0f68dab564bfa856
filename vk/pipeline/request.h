/* request — what a user may ask for: one table (request.def) behind the bus, tickets, the command
 * line.
 *
 * A request is filled row by row (request_set_*), completed by defaults (configuration, then model)
 * and checked as a whole (request_check). Every message names the row and what to change. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

#define REQUEST_PROMPT_MAX   16384u /* bytes of UTF-8 */
#define REQUEST_COUNT_MAX    16u    /* pictures of a prompt */
#define REQUEST_PICTURES_MAX 64u    /* of all prompts */

enum request_type {
    REQUEST_TYPE_S, /* char *      D-Bus s */
    REQUEST_TYPE_U, /* uint32_t    D-Bus u */
    REQUEST_TYPE_T, /* uint64_t    D-Bus t */
    REQUEST_TYPE_D, /* double      D-Bus d */
    REQUEST_TYPE_E, /* uint32_t    D-Bus s: one of `values` */
    REQUEST_TYPE_B, /* uint32_t    D-Bus b: 0 or 1 */
    REQUEST_TYPE_L, /* char *      D-Bus as: a JSON array of texts; see request_list() */
    REQUEST_TYPE_F, /* char *      D-Bus h: the name of a picture file */
};

enum request_row_id {
#define REQUEST_ROW(name, ...) REQUEST_##name,
#include "vk/pipeline/request.def"
#undef REQUEST_ROW
    REQUEST_ROW_COUNT,
};

enum scheduler_kind {
    SCHEDULER_PNDM,
    SCHEDULER_DDIM,
    SCHEDULER_LMS,
    SCHEDULER_EULER,
    SCHEDULER_DDPM,
    SCHEDULER_EULER_A,
    SCHEDULER_DPMPP_2M,
    SCHEDULER_HEUN,
    SCHEDULER_LCM,
    SCHEDULER_KIND_COUNT,
};

/* The words of the rows of type E, in the order of request.def. */
enum request_rng {
    RNG_CPU,
    RNG_CUDA,
};
enum request_batch_seed {
    BATCH_SEED_EACH,
    BATCH_SEED_STREAM,
};
enum request_fit {
    FIT_STRETCH,
    FIT_COVER,
    FIT_CONTAIN,
};
enum request_compat {
    COMPAT_NONE,
    COMPAT_0_6,
};
enum request_prompt_syntax {
    PROMPT_SYNTAX_PLAIN,
    PROMPT_SYNTAX_WEIGHTED,
};
enum request_long_prompt {
    LONG_PROMPT_TRUNCATE,
    LONG_PROMPT_CHUNK,
};
enum request_safety {
    SAFETY_OFF,
    SAFETY_FLAG,
    SAFETY_BLACK,
};

struct request_row {
    const char *name;
    enum request_type type;
    size_t offset; /* of the field in struct request */
    const char *default_text;
    double min, max; /* inclusive; for T the exact maximum is `max_integer` */
    uint64_t max_integer;
    const char *unit;
    const char *values; /* blank separated, for E */
    const char *help;
};

/* Owns its strings. All-zero is a valid empty request; request_done() releases and zeroes. */
struct request {
    char *prompt, *negative_prompt; /* NULL means empty */
    uint32_t width, height;         /* pixels; 0: the size of `image`, floored */
    uint32_t steps;
    double guidance_scale;
    uint64_t seed;
    uint32_t count;
    uint32_t scheduler; /* enum scheduler_kind */
    uint64_t deadline;  /* usec from the submission; 0: none */
    char *preset, *token;
    uint32_t ephemeral, cancel_on_disconnect; /* 0 or 1 */
    double eta, strength;
    uint32_t sigmas, timestep_spacing, prediction; /* 0: the model's; else as sched.h's, + 1 */
    uint32_t rng, batch_seed, fit, compat, prompt_syntax, long_prompt, safety; /* enums above */
    uint32_t clip_skip, callback_steps, preview_steps;
    char *image, *mask;               /* NULL or empty: none */
    char *prompts, *negative_prompts; /* JSON arrays; NULL or empty: none */
    char *model, *lora;
    uint64_t set; /* bit i: row i has a value, given or filled in */
};

/* What a model and a device lay down for the rows that have no fixed default. */
struct request_context {
    uint32_t width, height;        /* default size, pixels */
    uint32_t multiple;             /* sizes must be a multiple of this: max(8, VAE factor) */
    uint32_t train_steps;          /* steps must be below it */
    enum scheduler_kind scheduler; /* the model's own */
    bool is_inpainting;            /* 9-channel U-Net: image and mask are needed */
    bool has_safety;               /* there is a safety checker */
    uint32_t text_layers;          /* clip_skip must be below it; 0: unknown */
    uint64_t max_pixels;           /* 0: no limit of the configuration */
};

/* Texts of a row of type L. */
struct text_list {
    char **items;
    size_t count;
};

extern const struct request_row request_rows[REQUEST_ROW_COUNT];

/* Row by name ('-' and '_' alike), NULL when there is none. */
const struct request_row *request_row_find(const char *name);
static inline bool request_is_set(const struct request *q, enum request_row_id row)
{
    return q->set >> row & 1;
}

/* Is the field a char *? */
static inline bool request_row_is_text(const struct request_row *row)
{
    return row->type == REQUEST_TYPE_S || row->type == REQUEST_TYPE_L ||
           row->type == REQUEST_TYPE_F;
}

/* D-Bus signature of a row's value: "s", "u", "t", "d", "b", "as" or "h". */
const char *request_row_signature(const struct request_row *row);

/* Sets one row. -EINVAL outside type or range, -E2BIG for a text over its limit (fault names the
 * row and the legal values), -EILSEQ for text that is no UTF-8 or holds NUL (length given),
 * -ENOMEM. _text parses a ticket's or flag's notation; the others take a typed value and refuse a
 * row of another type, naming both types. */
int request_set_text(struct request *q, const struct request_row *row, const char *text,
                     size_t length, struct fault *f);
int request_set_uint(struct request *q, const struct request_row *row, uint64_t value,
                     struct fault *f);
int request_set_double(struct request *q, const struct request_row *row, double value,
                       struct fault *f);
int request_set_list(struct request *q, const struct request_row *row, const char *const *texts,
                     size_t count, struct fault *f);

/* The texts of a row of type L; none: count 0. 0 or -ENOMEM. */
int request_list(const struct request *q, const struct request_row *row,
                 struct text_list *ret_list);
void text_list_done(struct text_list *list);

/* One of the row `lora`, "NAME[:weight],…": the weight follows the last colon, 1 where none is. */
#define REQUEST_LORAS_MAX       16u
#define REQUEST_LORA_WEIGHT_MAX 100.0 /* either sign */
struct request_lora {
    char name[1024]; /* not looked for */
    double weight;
};
/* Reads the row's text (may be NULL). -EINVAL + fault. */
int request_loras(const char *text, struct request_lora ret_loras[REQUEST_LORAS_MAX],
                  uint32_t *ret_count, struct fault *f);
/* -EINVAL + fault for what is not the name of one file: a path, hidden, with control characters. */
int request_check_lora_name(const char *name, struct fault *f);

static inline bool request_has_image(const struct request *q)
{
    return q->image && q->image[0];
}
static inline bool request_has_mask(const struct request *q)
{
    return q->mask && q->mask[0];
}

/* Prompts of a request (at least 1), and pictures in all: prompt-major, `count` of each. */
uint32_t request_prompt_count(const struct request *q);
uint32_t request_picture_count(const struct request *q);

/* A row's value in ticket notation (numbers shortest round-trip), malloc'd into *ret_text. */
int request_format(const struct request *q, const struct request_row *row, char **ret_text);

/* Rows set in `from` and not in `q` are copied. 0 or -ENOMEM. */
int request_merge(struct request *q, const struct request *from);

/* Fills every row not set yet: from `defaults` (may be NULL) where set there, then from the table,
 * then from `context`. A seed not given is drawn below 2^32 from the kernel. */
int request_complete(struct request *q, const struct request *defaults,
                     const struct request_context *context, struct fault *f);

/* Checks a completed request as a whole: sizes and multiples, steps below the training steps,
 * seed + count - 1 in range, pixels. -EINVAL, or -EFBIG for legal sizes over max_pixels. */
int request_check(const struct request *q, const struct request_context *context, struct fault *f);

/* Only width and height; those left to a picture (0) are not looked at. */
int request_check_size(const struct request *q, const struct request_context *context,
                       struct fault *f);

int request_copy(const struct request *from, struct request *ret_to);
void request_done(struct request *q);

/* Reads a drop ticket: INI text with one section [job] and any row as key; sections listed in
 * `ignored` (NULL-terminated, may be NULL) are skipped. Refuses unknown keys and sections,
 * duplicates, continuation lines, lines over the INI library's limit: each by line number. */
int request_parse_ticket(const char *text, size_t length, const char *const *ignored,
                         struct request *ret_request, struct fault *f);

const char *scheduler_kind_to_string(enum scheduler_kind kind);
