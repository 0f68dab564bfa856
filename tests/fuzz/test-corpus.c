/* The kept corpus, fed to every fuzz target with this build's compiler; and some thousand seeded
 * mutations of it, so that a build without libFuzzer finds something too. What fails is left in
 * BUILD/logs/fuzz-TARGET. FUZZ_MUTATIONS=n mutations a target (4000); FUZZ_SEED=n, another draw. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/build.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define CORPUS       "tests/fuzz/corpus"
#define MUTATIONS    4000u
#define SIZE_MAX_    (1u << 17)
#define TARGETS_MAX  32
#define REPEATED_MAX 8 /* mutations of one input in a row */

struct input {
    uint8_t *data;
    size_t size;
};

struct corpus ARRAY(struct input);

/* What is being run, for the handler. */
static struct {
    const char *target;
    const uint8_t *data;
    size_t size;
} now;
static uint32_t seed;

/* --- keeping what fails ----------------------------------------------------------------------- */

static void on_failure(int number)
{
    char path[512], name[64];

    (void)snprintf(name, sizeof name, "logs/fuzz-%s", now.target);
    build_path(name, path, sizeof path);
    bool is_kept = file_write_atomic(path, now.data, now.size, NULL) == 0;
    (void)fprintf(stderr, "%s: signal %d; the input is %s\n", now.target, number,
                  is_kept ? path : "lost");
    _exit(1);
}

static void feed(const struct fuzz_target *target, const uint8_t *data, size_t size)
{
    now.target = target->name;
    now.data = data;
    now.size = size;
    target->run(data, size);
}

/* --- mutations -------------------------------------------------------------------------------- */

static size_t mutate_once(uint8_t *data, size_t size, size_t max_size)
{
    uint32_t at = fuzz_below(&seed, (uint32_t)size);
    uint32_t n = 1 + fuzz_below(&seed, size - at < 8 ? (uint32_t)(size - at) : 8);
    uint8_t piece[8];

    switch (fuzz_below(&seed, 5)) {
    case 0:
        if (size > 0)
            data[at] ^= (uint8_t)(1u << fuzz_below(&seed, 8));
        return size;
    case 1:
        if (size > 0)
            data[at] = (uint8_t)fuzz_random(&seed);
        return size;
    case 2: /* out */
        if (size < n)
            return size;
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 3: /* twice */
        if (size < n)
            return size;
        memcpy(piece, data + at, n);
        return fuzz_insert(data, size, max_size, fuzz_below(&seed, (uint32_t)size), piece, n);
    default:
        piece[0] = (uint8_t)fuzz_random(&seed);
        return fuzz_insert(data, size, max_size, at, piece, 1);
    }
}

static size_t mutate_bytes(uint8_t *data, size_t size, size_t max_size)
{
    for (uint32_t i = 1 + fuzz_below(&seed, 4); i > 0; i--)
        size = mutate_once(data, size, max_size);
    return size;
}

/* Mutations of mutations of one input. */
static void feed_mutations(const struct fuzz_target *target, const struct input *from)
{
    uint8_t *data = malloc(target->max_size), *exact;
    size_t size = from->size < target->max_size ? from->size : target->max_size;

    assert_non_null(data);
    memcpy(data, from->data, size);
    for (unsigned i = 0; i < REPEATED_MAX; i++) {
        size = fuzz_mutate(target, data, size, target->max_size, fuzz_random(&seed), mutate_bytes);
        exact = malloc(size ? size : 1); /* so that a sanitizer sees its end */
        assert_non_null(exact);
        memcpy(exact, data, size);
        feed(target, exact, size);
        free(exact);
    }
    free(data);
}

/* --- corpus ----------------------------------------------------------------------------------- */

static void read_corpus(const char *name, struct corpus *ret_corpus)
{
    char path[512];
    struct fault f = {0};
    const struct dirent *entry;

    (void)snprintf(path, sizeof path, CORPUS "/%s", name);
    _cleanup_(closedirp) DIR *directory = opendir(path);
    assert_non_null(directory);
    while ((entry = readdir(directory))) {
        char *data = NULL;
        size_t size;
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, CORPUS "/%s/%s", name, entry->d_name);
        if (file_read(path, SIZE_MAX_, &data, &size, &f) < 0)
            fail_msg("%s", f.text);
        struct input *input = array_push(ret_corpus);
        assert_non_null(input);
        *input = (struct input){(uint8_t *)data, size};
    }
}

static unsigned number_of(const char *name, unsigned fallback)
{
    const char *text = getenv(name);

    return text ? (unsigned)strtoul(text, NULL, 10) : fallback;
}

static void test_target(void **state)
{
    const struct fuzz_target *target = *state;
    struct corpus corpus = {0};

    read_corpus(target->name, &corpus);
    assert_true(corpus.count > 0);
    feed(target, (const uint8_t *)"", 0);
    for (size_t i = 0; i < corpus.count; i++)
        feed(target, corpus.items[i].data, corpus.items[i].size);
    seed = number_of("FUZZ_SEED", 1);
    for (unsigned i = number_of("FUZZ_MUTATIONS", MUTATIONS) / REPEATED_MAX; i > 0; i--)
        feed_mutations(target, &corpus.items[fuzz_below(&seed, (uint32_t)corpus.count)]);
    for (size_t i = 0; i < corpus.count; i++)
        free(corpus.items[i].data);
    array_done(&corpus);
}

int main(void)
{
    struct CMUnitTest tests[TARGETS_MAX];
    size_t count = 0;

    (void)signal(SIGABRT, on_failure);
    (void)signal(SIGSEGV, on_failure);
    for (; fuzz_targets[count] && count < TARGETS_MAX; count++)
        tests[count] = (struct CMUnitTest){.name = fuzz_targets[count]->name,
                                           .test_func = test_target,
                                           .initial_state = (void *)(uintptr_t)fuzz_targets[count]};
    return _cmocka_run_group_tests("corpus", tests, count, NULL, NULL);
}
