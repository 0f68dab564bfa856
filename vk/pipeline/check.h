/* check — the known answer: does the device still hold and draw what it did?
 *
 * A sum over every bit of the weights on the device, then a picture of a few pixels, fixed prompt
 * and seed, one scheduler call, through text encoder, U-Net and decoder, in a session of its own
 * that is kept (so that a check after sleep allocates nothing). Sum and stages are compared bit by
 * bit with the first answer of this process, and that one with the answer of an earlier process
 * where the cache directory has one for the same weights, device, driver and kernels. While LoRAs
 * are merged the sum is compared with the one taken when they were, and the stages with those of
 * the first check since then. */
#pragma once

#include "vk/base/sha256.h"
#include "vk/pipeline/pipeline.h"

/* In the order of the work: the first that differs is the one to name. */
enum check_part {
    CHECK_WEIGHTS,
    CHECK_TEXT,
    CHECK_LATENTS,
    CHECK_IMAGE,
    CHECK_PART_COUNT,
};

struct check_answer {
    char digest[CHECK_PART_COUNT][SHA256_HEX_SIZE];
};

struct check {
    struct pipeline pipeline;
    char *path;                /* of the answer kept on disk; NULL: none */
    char key[SHA256_HEX_SIZE]; /* weights, device, driver, kernels */
    bool has_answer;
    struct check_answer answer;    /* the first of this process */
    const struct lora_state *lora; /* of the pipeline; NULL: none */
    uint64_t merged_id;            /* of lora when `merged` was the answer; 0: never */
    struct check_answer merged;
};

/* `like`: its gpu, model and loaded weights are used, its session is not. `cache`: directory, may
 * be NULL. -ENOMEM. */
int check_init(struct check *c, const struct pipeline *like, const char *cache, struct fault *f);
void check_done(struct check *c);

/* 0; -EBADMSG + fault: a NaN, a constant where none can be, or another answer; or what
 * pipeline_run() says. */
int check_run(struct check *c, struct fault *f);

/* The file of an answer. format: malloc'd text; parse: false for a file that is damaged, of another
 * key or of another version: as good as none. Pure. */
char *check_format(const char *key, const struct check_answer *answer);
bool check_parse(const char *text, const char *key, struct check_answer *ret_answer);
