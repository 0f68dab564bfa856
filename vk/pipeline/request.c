#include "vk/pipeline/request-private.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <utf8proc.h>

#define SHOWN_MAX 40 /* bytes of a value that a message repeats */

const struct request_row request_rows[REQUEST_ROW_COUNT] = {
#define REQUEST_ROW(row, kind, member, fallback, low, high, unit_, values_, help_)                 \
    {.name = #row,                                                                                 \
     .type = REQUEST_TYPE_##kind,                                                                  \
     .offset = offsetof(struct request, member),                                                   \
     .default_text = fallback,                                                                     \
     .min = low,                                                                                   \
     .max = (double)(high),                                                                        \
     .max_integer = high,                                                                          \
     .unit = unit_,                                                                                \
     .values = values_,                                                                            \
     .help = help_},
#include "vk/pipeline/request.def"
#undef REQUEST_ROW
};

/* --- rows ------------------------------------------------------------------------------------- */

static bool is_same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
            return false;
    }
    return *a == *b;
}

const struct request_row *request_row_find(const char *name)
{
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        if (is_same_name(request_rows[i].name, name))
            return &request_rows[i];
    }
    return NULL;
}

const char *request_row_signature(const struct request_row *row)
{
    static const char *const signatures[] = {
        [REQUEST_TYPE_S] = "s",  [REQUEST_TYPE_U] = "u", [REQUEST_TYPE_T] = "t",
        [REQUEST_TYPE_D] = "d",  [REQUEST_TYPE_E] = "s", [REQUEST_TYPE_B] = "b",
        [REQUEST_TYPE_L] = "as", [REQUEST_TYPE_F] = "h",
    };

    return signatures[row->type];
}

static void *field(struct request *q, const struct request_row *row)
{
    return (char *)q + row->offset;
}

static const void *const_field(const struct request *q, const struct request_row *row)
{
    return (const char *)q + row->offset;
}

static void mark_set(struct request *q, const struct request_row *row)
{
    q->set |= 1ull << (row - request_rows);
}

static bool has_row(const struct request *q, const struct request_row *row)
{
    return q->set >> (row - request_rows) & 1;
}

/* --- setting, typed --------------------------------------------------------------------------- */

static int fault_range(const struct request_row *row, const char *given, struct fault *f)
{
    return fault_set(f, -EINVAL, "%s: %.*s is outside %.0f…%" PRIu64, row->name, SHOWN_MAX, given,
                     row->min, row->max_integer);
}

static int fault_type(const struct request_row *row, const char *given, struct fault *f)
{
    static const char *const words[] = {
        [REQUEST_TYPE_S] = "a text",
        [REQUEST_TYPE_U] = "a whole number (u)",
        [REQUEST_TYPE_T] = "a whole number (t)",
        [REQUEST_TYPE_D] = "a number (d)",
        [REQUEST_TYPE_E] = "one word of a list",
        [REQUEST_TYPE_B] = "yes or no (b)",
        [REQUEST_TYPE_L] = "a list of texts (as)",
        [REQUEST_TYPE_F] = "a picture (h)",
    };

    return fault_set(f, -EINVAL, "%s: want %s, not %s", row->name, words[row->type], given);
}

int request_set_uint(struct request *q, const struct request_row *row, uint64_t value,
                     struct fault *f)
{
    char given[24];

    if (row->type == REQUEST_TYPE_D)
        return request_set_double(q, row, (double)value, f);
    if (row->type != REQUEST_TYPE_U && row->type != REQUEST_TYPE_T && row->type != REQUEST_TYPE_B)
        return fault_type(row, "a number", f);
    if (value < (uint64_t)row->min || value > row->max_integer) {
        (void)snprintf(given, sizeof given, "%" PRIu64, value);
        return fault_range(row, given, f);
    }
    if (row->type != REQUEST_TYPE_T)
        *(uint32_t *)field(q, row) = (uint32_t)value;
    else
        *(uint64_t *)field(q, row) = value;
    mark_set(q, row);
    return 0;
}

int request_set_double(struct request *q, const struct request_row *row, double value,
                       struct fault *f)
{
    char given[32];

    if (row->type != REQUEST_TYPE_D)
        return fault_type(row, "a number with fraction", f);
    if (!(value >= row->min && value <= row->max)) { /* NaN too */
        (void)snprintf(given, sizeof given, "%g", value);
        return fault_range(row, given, f);
    }
    *(double *)field(q, row) = value;
    mark_set(q, row);
    return 0;
}

/* --- setting, from text ----------------------------------------------------------------------- */

bool request_is_utf8(const char *text, size_t length)
{
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t left = (utf8proc_ssize_t)length;

    while (left > 0) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate(p, left, &c);
        if (n <= 0)
            return false;
        p += n;
        left -= n;
    }
    return true;
}

int request_set_string(struct request *q, const struct request_row *row, const char *text,
                       size_t length, struct fault *f)
{
    if (length > row->max_integer)
        return fault_set(f, -E2BIG, "%s: %zu bytes; at most %" PRIu64 " are possible", row->name,
                         length, row->max_integer);
    if (memchr(text, '\0', length))
        return fault_set(f, -EILSEQ, "%s: holds a NUL character", row->name);
    if (!request_is_utf8(text, length))
        return fault_set(f, -EILSEQ, "%s: is not UTF-8", row->name);
    char *copy = strndup(text, length);
    if (!copy)
        return fault_set(f, -ENOMEM, "out of memory");
    char **value = field(q, row);
    free(*value);
    *value = copy;
    mark_set(q, row);
    return 0;
}

/* The position of `text` among the row's words, -1 when it is none. */
static int find_word(const char *words, const char *text, size_t length)
{
    int index = 0;

    while (*words) {
        size_t n = strcspn(words, " ");
        if (n == length && memcmp(words, text, n) == 0)
            return index;
        words += n;
        words += strspn(words, " ");
        index++;
    }
    return -1;
}

static int set_word(struct request *q, const struct request_row *row, const char *text,
                    size_t length, struct fault *f)
{
    int index = find_word(row->values, text, length);
    int shown = length < SHOWN_MAX ? (int)length : SHOWN_MAX;

    if (index < 0)
        return fault_set(f, -EINVAL, "%s: %.*s is unknown; choose one of: %s", row->name, shown,
                         text, row->values);
    *(uint32_t *)field(q, row) = (uint32_t)index;
    mark_set(q, row);
    return 0;
}

static int set_boolean(struct request *q, const struct request_row *row, const char *text,
                       size_t length, struct fault *f)
{
    static const char words[] = "no yes false true 0 1"; /* odd places are true */
    int index = find_word(words, text, length);
    int shown = length < SHOWN_MAX ? (int)length : SHOWN_MAX;

    if (index < 0)
        return fault_set(f, -EINVAL, "%s: %.*s is neither yes nor no", row->name, shown, text);
    return request_set_uint(q, row, (uint64_t)index & 1, f);
}

/* Digits only. -ERANGE beyond 2^64-1. */
static int parse_uint(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (!*text)
        return -EINVAL;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        if (value > (UINT64_MAX - (uint64_t)(*text - '0')) / 10)
            return -ERANGE;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *ret_value = value;
    return 0;
}

int request_parse_double(const char *text, double *ret_value)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    char *end = NULL;

    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) {
        freelocale(c);
        return -EINVAL;
    }
    double value = strtod_l(text, &end, c);
    freelocale(c);
    if (*end || !isfinite(value))
        return -EINVAL;
    *ret_value = value;
    return 0;
}

static int set_number(struct request *q, const struct request_row *row, const char *text,
                      struct fault *f)
{
    uint64_t integer = 0;
    double number = 0;
    int r;

    if (row->type == REQUEST_TYPE_D) {
        r = request_parse_double(text, &number);
        if (r == 0)
            return request_set_double(q, row, number, f);
    } else {
        r = parse_uint(text, &integer);
        if (r == 0)
            return request_set_uint(q, row, integer, f);
        if (r == -ERANGE || (text[0] == '-' && parse_uint(text + 1, &integer) != -EINVAL))
            return fault_range(row, text, f);
    }
    return fault_set(f, -EINVAL, "%s: %.*s is no %snumber", row->name, SHOWN_MAX, text,
                     row->type == REQUEST_TYPE_D ? "" : "whole ");
}

int request_set_text(struct request *q, const struct request_row *row, const char *text,
                     size_t length, struct fault *f)
{
    char number[64];

    if (row->type == REQUEST_TYPE_S || row->type == REQUEST_TYPE_F)
        return request_set_string(q, row, text, length, f);
    if (row->type == REQUEST_TYPE_L)
        return request_set_list_text(q, row, text, length, f);
    if (!request_is_utf8(text, length) || memchr(text, '\0', length))
        return fault_set(f, -EILSEQ, "%s: is not UTF-8 text", row->name);
    if (row->type == REQUEST_TYPE_E)
        return set_word(q, row, text, length, f);
    if (row->type == REQUEST_TYPE_B)
        return set_boolean(q, row, text, length, f);
    if (length >= sizeof number)
        return fault_set(f, -EINVAL, "%s: a number of %zu characters", row->name, length);
    memcpy(number, text, length);
    number[length] = '\0';
    return set_number(q, row, number, f);
}

/* --- formatting ------------------------------------------------------------------------------- */

/* The shortest decimal that reads back the same; an exponent only where the number is long
 * without. */
static char *format_double(double value)
{
    bool is_plain = value == 0 || (fabs(value) >= 1e-4 && fabs(value) < 1e15);
    char *text = NULL;

    for (int precision = 1; precision <= 17; precision++) {
        double back = 0;
        free(text);
        if (asprintf(&text, "%.*g", precision, value) < 0)
            return NULL;
        for (char *p = text; *p; p++) { /* a locale's comma */
            if (*p == ',')
                *p = '.';
        }
        if (request_parse_double(text, &back) == 0 && back == value &&
            !(is_plain && strchr(text, 'e')))
            break;
    }
    return text;
}

static char *format_word(const char *words, uint32_t index)
{
    while (index-- > 0) {
        words += strcspn(words, " ");
        words += strspn(words, " ");
    }
    return strndup(words, strcspn(words, " "));
}

int request_format(const struct request *q, const struct request_row *row, char **ret_text)
{
    const void *value = const_field(q, row);
    char *text = NULL;

    switch (row->type) {
    case REQUEST_TYPE_S:
    case REQUEST_TYPE_L:
    case REQUEST_TYPE_F:
        text = strdup(*(char *const *)value ? *(char *const *)value : "");
        break;
    case REQUEST_TYPE_U:
        if (asprintf(&text, "%" PRIu32, *(const uint32_t *)value) < 0)
            text = NULL;
        break;
    case REQUEST_TYPE_T:
        if (asprintf(&text, "%" PRIu64, *(const uint64_t *)value) < 0)
            text = NULL;
        break;
    case REQUEST_TYPE_D:
        text = format_double(*(const double *)value);
        break;
    case REQUEST_TYPE_E:
        text = format_word(row->values, *(const uint32_t *)value);
        break;
    case REQUEST_TYPE_B:
        text = strdup(*(const uint32_t *)value ? "yes" : "no");
        break;
    }
    if (!text)
        return -ENOMEM;
    *ret_text = text;
    return 0;
}

/* --- completing and checking ------------------------------------------------------------------ */

static int copy_row(const struct request *from, const struct request_row *row, struct request *to)
{
    const void *value = const_field(from, row);
    static const size_t sizes[] = {[REQUEST_TYPE_U] = 4,
                                   [REQUEST_TYPE_T] = 8,
                                   [REQUEST_TYPE_D] = 8,
                                   [REQUEST_TYPE_E] = 4,
                                   [REQUEST_TYPE_B] = 4};

    if (request_row_is_text(row)) {
        const char *text = *(char *const *)value;
        char *copy = text ? strdup(text) : NULL;
        if (text && !copy)
            return -ENOMEM;
        free(*(char **)field(to, row));
        *(char **)field(to, row) = copy;
    } else {
        memcpy(field(to, row), value, sizes[row->type]);
    }
    mark_set(to, row);
    return 0;
}

int request_merge(struct request *q, const struct request *from)
{
    int r = 0;

    for (size_t i = 0; i < REQUEST_ROW_COUNT && r >= 0; i++)
        if (has_row(from, &request_rows[i]) && !has_row(q, &request_rows[i]))
            r = copy_row(from, &request_rows[i], q);
    return r;
}

/* What the table leaves open: the model's own size (a picture's is known once it is decoded), its
 * scheduler and what else follows from it. */
static void fill_context(struct request *q, const struct request_context *c)
{
    if (!request_is_set(q, REQUEST_width))
        q->width = request_has_image(q) ? 0 : c->width;
    if (!request_is_set(q, REQUEST_height))
        q->height = request_has_image(q) ? 0 : c->height;
    if (!request_is_set(q, REQUEST_strength))
        q->strength = c->is_inpainting ? 1 : 0.8;
    if (!request_is_set(q, REQUEST_safety))
        q->safety = c->has_safety ? SAFETY_BLACK : SAFETY_OFF;
    if (!request_is_set(q, REQUEST_scheduler))
        q->scheduler = c->scheduler;
}

/* Below 2^32, and such that the last picture's seed is too. */
static int draw_seed(struct request *q, struct fault *f)
{
    uint32_t seed = 0;

    if (request_is_set(q, REQUEST_seed))
        return 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return fault_set(f, -ENODATA, "seed: the kernel gives no random numbers");
    if (seed > UINT32_MAX - REQUEST_PICTURES_MAX)
        seed -= REQUEST_PICTURES_MAX;
    q->seed = seed;
    return 0;
}

int request_complete(struct request *q, const struct request *defaults,
                     const struct request_context *context, struct fault *f)
{
    int r = defaults ? request_merge(q, defaults) : 0;

    for (size_t i = 0; i < REQUEST_ROW_COUNT && r >= 0; i++) {
        const struct request_row *row = &request_rows[i];
        if (!has_row(q, row) && row->default_text[0])
            r = request_set_text(q, row, row->default_text, strlen(row->default_text), f);
    }
    if (r == -ENOMEM)
        return fault_set(f, r, "out of memory");
    if (r >= 0)
        r = draw_seed(q, f);
    if (r < 0)
        return r;
    fill_context(q, context);
    q->set = (1ull << REQUEST_ROW_COUNT) - 1;
    return 0;
}

static int check_side(const struct request_row *row, uint32_t value, uint32_t multiple,
                      struct fault *f)
{
    uint32_t below = value / multiple * multiple, above = below + multiple;

    if (value < (uint32_t)row->min || value > row->max_integer)
        return fault_set(f, -EINVAL, "%s: %u is outside %.0f…%" PRIu64, row->name, value, row->min,
                         row->max_integer);
    if (value % multiple == 0)
        return 0;
    if (below < (uint32_t)row->min || above > row->max_integer)
        return fault_set(f, -EINVAL, "%s: %u is not a multiple of %u; use %u", row->name, value,
                         multiple, below < (uint32_t)row->min ? above : below);
    return fault_set(f, -EINVAL, "%s: %u is not a multiple of %u; use %u or %u", row->name, value,
                     multiple, below, above);
}

int request_check_size(const struct request *q, const struct request_context *context,
                       struct fault *f)
{
    uint32_t multiple = context->multiple ? context->multiple : 8;
    int r = 0;

    if (!request_has_image(q) || q->width)
        r = check_side(&request_rows[REQUEST_width], q->width, multiple, f);
    if (r >= 0 && (!request_has_image(q) || q->height))
        r = check_side(&request_rows[REQUEST_height], q->height, multiple, f);
    if (r >= 0 && context->max_pixels && (uint64_t)q->width * q->height > context->max_pixels)
        return fault_set(f, -EFBIG, "%ux%u: more than the %" PRIu64 " pixels this service allows",
                         q->width, q->height, context->max_pixels);
    return r;
}

static int check_count(const struct request *q, struct fault *f)
{
    uint32_t pictures = request_picture_count(q);

    if (q->count < 1 || q->count > REQUEST_COUNT_MAX)
        return fault_set(f, -EINVAL, "count: %u is outside 1…%u", q->count, REQUEST_COUNT_MAX);
    if (pictures > REQUEST_PICTURES_MAX)
        return fault_set(f, -EINVAL, "count: %u prompts of %u pictures each make %u; at most %u",
                         request_prompt_count(q), q->count, pictures, REQUEST_PICTURES_MAX);
    if (q->seed > (uint64_t)INT64_MAX - (pictures - 1))
        return fault_set(f, -EINVAL,
                         "seed: %" PRIu64 " and %u more for count is outside 0…%" PRId64, q->seed,
                         pictures - 1, INT64_MAX);
    return 0;
}

static int check_prompts(const struct request *q, struct fault *f)
{
    size_t prompts = request_list_count(q->prompts),
           negatives = request_list_count(q->negative_prompts);

    if (prompts && q->prompt && q->prompt[0])
        return fault_set(f, -EINVAL, "prompts: there is a prompt too; give one of them");
    if (negatives && q->negative_prompt && q->negative_prompt[0])
        return fault_set(f, -EINVAL,
                         "negative_prompts: there is a negative_prompt too; give one of them");
    if (negatives && negatives != request_prompt_count(q))
        return fault_set(f, -EINVAL, "negative_prompts: %zu texts, but there are %u prompts",
                         negatives, request_prompt_count(q));
    return 0;
}

static int check_pictures(const struct request *q, const struct request_context *context,
                          struct fault *f)
{
    if (request_has_mask(q) && !request_has_image(q))
        return fault_set(f, -EINVAL, "mask: there is no image it belongs to");
    if (context->is_inpainting && !request_has_mask(q))
        return fault_set(f, -EINVAL,
                         "mask: this model is made for inpainting; it wants an image and a mask");
    return 0;
}

int request_check(const struct request *q, const struct request_context *context, struct fault *f)
{
    int r = request_check_size(q, context, f);

    if (r < 0)
        return r;
    if (q->steps < 1 || q->steps >= context->train_steps)
        return fault_set(f, -EINVAL, "steps: %u is outside 1…%u for this model", q->steps,
                         context->train_steps - 1);
    if (context->text_layers && q->clip_skip >= context->text_layers)
        return fault_set(f, -EINVAL, "clip_skip: %u of the text encoder's %u layers; at most %u",
                         q->clip_skip, context->text_layers, context->text_layers - 1);
    if (q->safety != SAFETY_OFF && !context->has_safety)
        return fault_set(f, -EINVAL, "safety: this model has no safety checker; choose off");
    r = check_prompts(q, f);
    if (r >= 0)
        r = check_count(q, f);
    return r < 0 ? r : check_pictures(q, context, f);
}

int request_copy(const struct request *from, struct request *ret_to)
{
    _cleanup_(request_done) struct request to = {0};

    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        int r = copy_row(from, &request_rows[i], &to);
        if (r < 0)
            return r;
    }
    to.set = from->set;
    *ret_to = to;
    to = (struct request){0};
    return 0;
}

void request_done(struct request *q)
{
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        if (request_row_is_text(&request_rows[i]))
            free(*(char **)field(q, &request_rows[i]));
    }
    *q = (struct request){0};
}

/* --- schedulers by name ----------------------------------------------------------------------- */

static const char *const scheduler_names[SCHEDULER_KIND_COUNT] = {
    [SCHEDULER_PNDM] = "pndm",         [SCHEDULER_DDIM] = "ddim", [SCHEDULER_LMS] = "lms",
    [SCHEDULER_EULER] = "euler",       [SCHEDULER_DDPM] = "ddpm", [SCHEDULER_EULER_A] = "euler-a",
    [SCHEDULER_DPMPP_2M] = "dpmpp-2m", [SCHEDULER_HEUN] = "heun", [SCHEDULER_LCM] = "lcm",
};

const char *scheduler_kind_to_string(enum scheduler_kind kind)
{
    return kind < SCHEDULER_KIND_COUNT ? scheduler_names[kind] : "unknown";
}
