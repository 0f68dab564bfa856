/* tokenize MODELDIR — reads one JSON string a line, prints one JSON array of ids a line.
 *
 * For our golden tests and for anyone who wants to compare engines. A line that is no JSON string
 * ends it: number and reason on stderr, exit status 1. NUL in a string is a character. */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/text/clip_bpe.h"

static void print_ids(const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        printf("%s%d", i ? ", " : "[", ids[i]);
    puts("]");
}

static int tokenize_line(const struct clip_bpe *t, const char *line, size_t size, int32_t *ids,
                         uint32_t n, struct fault *f)
{
    json_error_t error;

    json_t *text = json_loadb(line, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!text)
        return fault_set(f, -EINVAL, "no JSON string: %s", error.text);
    int r = json_is_string(text) ? clip_bpe_encode(t, json_string_value(text),
                                                   json_string_length(text), n, ids, NULL, f)
                                 : fault_set(f, -EINVAL, "no JSON string");
    json_decref(text);
    if (r == 0)
        print_ids(ids, n);
    return r;
}

static int tokenize_stream(const struct clip_bpe *t, FILE *in, struct fault *f)
{
    uint32_t n = clip_bpe_model_max_length(t);
    _cleanup_(freep) int32_t *ids = reallocarray(NULL, n, sizeof *ids);
    _cleanup_(freep) char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t size;

    if (!ids)
        return fault_set(f, -ENOMEM, "out of memory");
    while ((size = getline(&line, &capacity, in)) >= 0) {
        int r = tokenize_line(t, line, (size_t)size, ids, n, f);
        number++;
        if (r < 0)
            return fault_prefix(f, r, "line %zu", number);
    }
    if (ferror(in))
        return fault_set(f, -EIO, "standard input cannot be read");
    return 0;
}

int main(int argc, char **argv)
{
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
    char directory[PATH_MAX];
    struct fault f = {0};

    if (argc != 2) {
        fprintf(stderr, "usage: tokenize MODELDIR\n");
        return 2;
    }
    if (snprintf(directory, sizeof directory, "%s/tokenizer", argv[1]) >= (int)sizeof directory) {
        fprintf(stderr, "tokenize: path too long\n");
        return 1;
    }
    int r = clip_bpe_open(directory, &t, &f);
    if (r == 0)
        r = tokenize_stream(t, stdin, &f);
    if (fflush(stdout) != 0 && r == 0)
        r = fault_set(&f, -EIO, "standard output cannot be written");
    if (r < 0)
        fprintf(stderr, "tokenize: %s\n", f.text);
    return r < 0 ? 1 : 0;
}
