/* A drop ticket. What is accepted can be written down row by row and read again as the same
 * request; completing, checking and copying it give an answer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vk/pipeline/request.h"

static const char *const ignored[] = {"meta", NULL};

static void check_value(const struct request *q, const struct request_row *row)
{
    const char *field = (const char *)q + row->offset;
    uint64_t value = 0;

    if (request_row_is_text(row)) {
        const char *text = *(char *const *)field;
        if (text) /* NULL means empty */
            fuzz_check(strlen(text) <= row->max_integer && fuzz_is_utf8(text, strlen(text)));
    } else if (row->type == REQUEST_TYPE_D) {
        double number = *(const double *)field;
        fuzz_check(number >= row->min && number <= row->max);
    } else if (row->type == REQUEST_TYPE_U || row->type == REQUEST_TYPE_T) {
        value = row->type == REQUEST_TYPE_U ? *(const uint32_t *)field : *(const uint64_t *)field;
        if (value == 0 && row->min == 8 && request_has_image(q))
            return; /* a size that is the picture's to say */
        fuzz_check(value >= (uint64_t)row->min && value <= row->max_integer);
    }
}

/* The ticket that says the same; malloc'd. */
static char *write_ticket(const struct request *q, size_t *ret_length)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, ret_length);

    fuzz_check(out);
    (void)fputs("; written by fuzz\n[meta]\nno = such row\n[job]\n", out);
    for (unsigned i = 0; i < REQUEST_ROW_COUNT; i++) {
        char *value = NULL;
        if (!request_is_set(q, (enum request_row_id)i))
            continue;
        check_value(q, &request_rows[i]);
        fuzz_check(request_format(q, &request_rows[i], &value) == 0);
        (void)fprintf(out, "%s = %s\n", request_rows[i].name, value);
        free(value);
    }
    fuzz_check(fclose(out) == 0);
    return text;
}

static void check_again(const struct request *q)
{
    struct request again = {0};
    struct fault f = {0};
    size_t length, length_again;
    char *text = write_ticket(q, &length);

    int r = request_parse_ticket(text, length, ignored, &again, &f);
    if (r < 0)
        (void)fprintf(stderr, "%s\n%s", f.text, text);
    fuzz_check(r == 0 && again.set == q->set);
    char *text_again = write_ticket(&again, &length_again);
    fuzz_check(length == length_again && memcmp(text, text_again, length) == 0);
    free(text);
    free(text_again);
    request_done(&again);
}

static void check_whole(struct request *q)
{
    static const int errors[] = {-EINVAL, -EFBIG, 0};
    struct request_context context = {.width = 512,
                                      .height = 512,
                                      .multiple = 8,
                                      .train_steps = 1000,
                                      .scheduler = SCHEDULER_DDIM,
                                      .max_pixels = 1024 * 768};
    struct request copy = {0};
    struct fault f = {0};

    fuzz_check(request_complete(q, NULL, &context, &f) == 0);
    int r = request_check(q, &context, &f);
    if (r < 0)
        fuzz_check_fault(r, &f, errors);
    fuzz_check(request_copy(q, &copy) == 0 && copy.set == q->set);
    size_t a, b;
    char *text = write_ticket(q, &a), *text_of_copy = write_ticket(&copy, &b);
    fuzz_check(a == b && memcmp(text, text_of_copy, a) == 0);
    free(text);
    free(text_of_copy);
    request_done(&copy);
}

static void run(const uint8_t *data, size_t size)
{
    static const int errors[] = {-EINVAL, -E2BIG, -EFBIG, -EILSEQ, 0};
    struct request q = {0};
    struct fault f = {0};

    int r = request_parse_ticket((const char *)data, size, ignored, &q, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        fuzz_check(q.set == 0 && !q.prompt);
        return;
    }
    check_again(&q);
    check_whole(&q);
    request_done(&q);
}

static size_t mutate(uint8_t *data, size_t size, size_t max_size, uint32_t seed,
                     fuzz_bytes_t *bytes)
{
    static const char *const values[] = {"1",        "0",     "8",    "18446744073709551616",
                                         "-1",       "2048",  "1e2",  "0.1",
                                         "yes",      "no",    "pndm", "a b",
                                         "\xc3\xa4", "euler", ""};
    const struct request_row *row = &request_rows[fuzz_below(&seed, REQUEST_ROW_COUNT)];
    char line[128];

    if (fuzz_below(&seed, 3) == 0)
        return bytes(data, size, max_size);
    int n = snprintf(line, sizeof line, "%s%s = %s\n", size ? "\n" : "[job]\n", row->name,
                     values[fuzz_below(&seed, sizeof values / sizeof values[0])]);
    return fuzz_insert(data, size, max_size, size, line, (size_t)n);
}

static const char *const words[] = {"[job]\n", "[meta]\n",     "=", ":", ";", "#", "\n", " ",
                                    "\r\n",    "\xef\xbb\xbf", "[", "]", NULL};

const struct fuzz_target fuzz_ticket = {
    .name = "ticket", .max_size = 36000, .run = run, .mutate = mutate, .words = words};
