/* The spool's records. Input: one byte, bit 0 set for result.json, clear for request.json, bit 1
 * set when the text is whole, clear when the first line with the right sum is to be put before it;
 * the text. What is accepted is written and read again as the same record, and writing that gives
 * the same bytes. A record with any bit of it changed is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/record.h"
#include "tests/fuzz/fuzz.h"
#include "vk/base/sha256.h"

#define ID UINT64_C(17)

static const int errors[] = {-EINVAL, -E2BIG, -EILSEQ, 0};

static int parse(bool is_result, const char *text, size_t length, struct job *job, struct fault *f)
{
    return is_result ? record_parse_result(text, length, JOB_STATE_FAILED, job, f)
                     : record_parse_request(text, length, job, f);
}

static int format(bool is_result, const struct job *job, char **ret_text)
{
    return is_result ? record_format_result(job, JOB_STATE_FAILED, ret_text)
                     : record_format_request(job, ret_text);
}

static void check_accepted(bool is_result, const struct job *job)
{
    struct job *again = job_new(ID, 0);
    struct fault f = {0};
    char *text = NULL, *text_again = NULL;

    fuzz_check(job->picture_count <= REQUEST_PICTURES_MAX);
    fuzz_check(job->warnings.count <= JOB_WARNINGS_MAX);
    fuzz_check(again && format(is_result, job, &text) == 0);
    fuzz_check(strlen(text) <= RECORD_SIZE_MAX);
    int r = parse(is_result, text, strlen(text), again, &f);
    if (r < 0)
        (void)fprintf(stderr, "%s\n%s", f.text, text);
    fuzz_check(r == 0);
    fuzz_check(format(is_result, again, &text_again) == 0);
    fuzz_check(strcmp(text, text_again) == 0);
    fuzz_check(again->owner == job->owner && again->request.set == job->request.set);
    fuzz_check(again->picture_count == job->picture_count && again->error.err == job->error.err);
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++)
        fuzz_check(again->inputs[i].format == job->inputs[i].format &&
                   again->inputs[i].bytes == job->inputs[i].bytes && again->inputs[i].fd == -1);
    free(text);
    free(text_again);
    (void)job_free(again);
}

static void check_damaged(bool is_result, char *text, size_t length, size_t at)
{
    struct job *job = job_new(ID, 0);

    fuzz_check(job);
    text[at % length] ^= (char)(1 << at % 7);
    fuzz_check(parse(is_result, text, length, job, NULL) == -EINVAL);
    (void)job_free(job);
}

/* Malloc'd. */
static char *with_sum(const uint8_t *data, size_t size, size_t *ret_length)
{
    char sum[SHA256_HEX_SIZE], *text = NULL;

    sha256_hex(data, size, sum);
    int n = asprintf(&text, "{\"sha256\": \"%s\",\n", sum);
    fuzz_check(n > 0);
    text = realloc(text, (size_t)n + size);
    fuzz_check(text);
    memcpy(text + n, data, size);
    *ret_length = (size_t)n + size;
    return text;
}

static void run(const uint8_t *data, size_t size)
{
    struct fault f = {0};
    size_t length = size - 1;

    if (size < 2)
        return;
    bool is_result = data[0] & 1, is_whole = data[0] & 2;
    struct job *job = job_new(ID, 0);
    char *text = is_whole ? malloc(length) : with_sum(data + 1, length, &length);
    fuzz_check(job && text);
    if (is_whole)
        memcpy(text, data + 1, length);
    int r = parse(is_result, text, length, job, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
    } else {
        check_accepted(is_result, job);
        check_damaged(is_result, text, length, data[0] + size);
    }
    free(text);
    (void)job_free(job);
}

static const char *const words[] = {"\"format\": 2,",
                                    "\"origin\": \"drop:a\",",
                                    "\"deadline_uptime_usec\": 5,",
                                    "\"finished_uptime_usec\": 5,",
                                    "\"bytes\": 70,",
                                    "\"id\": 17,",
                                    "\"owner\": 0,",
                                    "\"created_usec\": 1,",
                                    "\"resolved\": true,",
                                    "\"request\": {",
                                    "\"prompt\": ",
                                    "\"steps\": 3,",
                                    "\"seed\": 9,",
                                    "\"guidance_scale\": 1,",
                                    "\"state\": ",
                                    "\"failed\"",
                                    "\"error\": [",
                                    "\"warnings\": [",
                                    "\"pictures\": [{",
                                    "\"width\": 8,",
                                    "\"height\": 8,",
                                    "\"sha256\": ",
                                    "\"inputs\": {",
                                    "\"image\": ",
                                    "\"mask\": ",
                                    "\"file\": \"input.png\",",
                                    "\"file\": \"mask.jpg\",",
                                    "\"prompt_index\": 1,",
                                    "\"checked\": true,",
                                    "\"nsfw\": true,",
                                    "\"blackened\": true,",
                                    "\"safety_scores\": [0.031, -0.1],",
                                    "\"prompts\": \"[\\\"a\\\"]\",",
                                    "}",
                                    "]",
                                    "null",
                                    "1e300",
                                    "-1",
                                    "9223372036854775807",
                                    NULL};

const struct fuzz_target fuzz_record = {
    .name = "record", .max_size = 8192, .run = run, .words = words};
