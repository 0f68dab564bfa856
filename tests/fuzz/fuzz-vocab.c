/* A tokenizer's files. Input: for each of the five files two bytes little endian, its length, or
 * 0xffff where it is absent; then their contents; what is left is a text. What opens encodes every
 * text to n ids within the vocabulary. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/text/clip_bpe.h"

#define FILES  5u
#define HEADER (2 * FILES)
#define ABSENT 0xffffu
#define IDS    77u

static const char *const names[FILES] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                         "special_tokens_map.json", "added_tokens.json"};

struct part {
    const uint8_t *data;
    size_t size;
    bool absent;
};

/* The files and, last, the text. */
static bool split(const uint8_t *data, size_t size, struct part parts[FILES + 1])
{
    size_t at = HEADER;

    if (size < HEADER)
        return false;
    for (unsigned i = 0; i < FILES; i++) {
        size_t wanted = data[2 * i] | (size_t)data[2 * i + 1] << 8;
        parts[i] = (struct part){.data = data + at, .absent = wanted == ABSENT};
        if (!parts[i].absent)
            parts[i].size = wanted < size - at ? wanted : size - at;
        at += parts[i].size;
    }
    parts[FILES] = (struct part){.data = data + at, .size = size - at};
    return true;
}

static size_t join(const struct part parts[FILES + 1], uint8_t *data, size_t max_size)
{
    size_t at = HEADER;

    for (unsigned i = 0; i <= FILES; i++) {
        size_t size = parts[i].size < max_size - at ? parts[i].size : max_size - at;
        if (i < FILES) {
            data[2 * i] = (uint8_t)(parts[i].absent ? ABSENT : size);
            data[2 * i + 1] = (uint8_t)((parts[i].absent ? ABSENT : size) >> 8);
        }
        memcpy(data + at, parts[i].data, size);
        at += size;
    }
    return at;
}

/* --- the files -------------------------------------------------------------------------------- */

static char directory[64];

static void remove_directory(void)
{
    char path[128];

    for (unsigned i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        (void)unlink(path); /* it may be absent */
    }
    (void)rmdir(directory);
}

static void make_directory_once(void)
{
    if (directory[0])
        return;
    (void)snprintf(directory, sizeof directory, "%s/fuzz-vocab-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    fuzz_check(mkdtemp(directory));
    fuzz_check(atexit(remove_directory) == 0);
}

static void write_part(const char *name, const struct part *part)
{
    char path[128];

    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    if (part->absent) {
        fuzz_check(unlink(path) == 0 || errno == ENOENT);
        return;
    }
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fuzz_check(fd >= 0 && file_write_all(fd, part->data, part->size) == 0);
}

/* --- one input -------------------------------------------------------------------------------- */

static void encode(const struct clip_bpe *t, const struct part *text)
{
    int32_t ids[IDS];
    size_t dropped = 0;

    int r = clip_bpe_encode(t, (const char *)text->data, text->size, IDS, ids, &dropped, NULL);
    fuzz_check((r == 0) == fuzz_is_utf8((const char *)text->data, text->size));
    fuzz_check(r == 0 || r == -EILSEQ);
    for (unsigned i = 0; r == 0 && i < IDS; i++)
        fuzz_check(ids[i] >= 0 && (uint32_t)ids[i] < clip_bpe_vocab_size(t));
    fuzz_check(dropped <= text->size);
}

static void run(const uint8_t *data, size_t size)
{
    static const int errors[] = {-ENOENT, -EINVAL, -EFBIG, -EILSEQ, 0};
    struct part parts[FILES + 1];
    struct clip_bpe *t = NULL;
    struct fault f = {0};

    if (!split(data, size, parts))
        return;
    make_directory_once();
    for (unsigned i = 0; i < FILES; i++)
        write_part(names[i], &parts[i]);
    int r = clip_bpe_open(directory, &t, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        fuzz_check(!t);
        return;
    }
    fuzz_check(clip_bpe_vocab_size(t) <= CLIP_BPE_VOCAB_MAX && clip_bpe_model_max_length(t) >= 2);
    encode(t, &parts[FILES]);
    (void)clip_bpe_free(t);
}

/* One of the parts is changed, the lengths follow. */
static size_t mutate(uint8_t *data, size_t size, size_t max_size, uint32_t seed,
                     fuzz_bytes_t *bytes)
{
    struct part parts[FILES + 1];
    uint32_t which = fuzz_below(&seed, FILES + 1);

    if (!split(data, size, parts))
        return bytes(data, size, max_size);
    uint8_t *copy = malloc(2 * max_size);
    if (!copy)
        return size;
    memcpy(copy, data, size);
    (void)split(copy, size, parts);
    uint8_t *changed = copy + max_size;
    memcpy(changed, parts[which].data, parts[which].size);
    parts[which].size = bytes(changed, parts[which].size, max_size);
    parts[which].data = changed;
    parts[which].absent = which < FILES && fuzz_below(&seed, 16) == 0;
    if (parts[which].absent)
        parts[which].size = 0;
    size = join(parts, data, max_size);
    free(copy);
    return size;
}

static const char *const words[] = {"\"<|startoftext|>\":0,",
                                    "\"<|endoftext|>\":1,",
                                    "\"a\":2,",
                                    "\"b</w>\":3,",
                                    "\"ab</w>\":4,",
                                    "a b</w>\n",
                                    "ab b</w>\n",
                                    "#version\n",
                                    "\"bos_token\":",
                                    "\"eos_token\":",
                                    "\"pad_token\":\"!\",",
                                    "{\"content\":\"x\",\"normalized\":true},",
                                    "\"single_word\":false,",
                                    "\"model_max_length\":77,",
                                    "\"model_max_length\":1e30,",
                                    "\"padding_side\":\"right\",",
                                    "\"additional_special_tokens\":[\"a\"],",
                                    "\"unk_token\":",
                                    "\xc4\xb0",
                                    "\xcc\x81",
                                    NULL};

const struct fuzz_target fuzz_vocab = {
    .name = "vocab", .max_size = 2048, .run = run, .mutate = mutate, .words = words};
