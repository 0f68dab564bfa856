/* What is chosen for a device, decided without one: an SD 1.5-shaped model at sizes that fit whole,
 * in bands, by making planes again, and not at all. Every launch is within the limits, every hazard
 * has its barrier, and what an error says would fit does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/barriers.h"
#include "vk/pipeline/fit.h"
#include "vk/pipeline/sd15.h"

#define MIB (1ull << 20)

/* 128 MiB bindings and 1 GiB allocations everywhere. */
static struct caps device(bool is_cpu, uint64_t texels)
{
    return (struct caps){.is_cpu = is_cpu,
                         .subgroup_size = is_cpu ? 8 : 32,
                         .max_invocations = 128,
                         .max_groups = {65535, 65535, 65535},
                         .max_shared = 16384,
                         .max_push = 128,
                         .max_binding = 128 * MIB,
                         .max_texels = texels,
                         .max_allocation = 1024 * MIB,
                         .max_buffer = 1024 * MIB,
                         .offset_alignment = 256};
}

static int fit(const struct caps *caps, uint64_t room, uint32_t w, uint32_t h,
               struct session_layout *l, struct fit *ret, struct fault *f)
{
    struct session_shape shape = {.width = w, .height = h, .batch = 2, .chunks = 1};
    _cleanup_(weights_freep) struct weights *weights = NULL;

    assert_int_equal(weights_open(NULL, &weights, f), 0);
    session_layout_make(&sd15, &shape, l);
    int r = fit_session(&sd15, weights, l, caps, room, ret, f);
    for (int i = 0; i < SESSION_GRAPH_COUNT && r >= 0; i++) {
        struct program p;
        assert_int_equal(program_make(ret->graphs[i], caps, session_chunk_macs(caps), &p, f), 0);
        assert_int_equal(barriers_missing(&p, NULL, NULL), 0);
        program_done(&p);
    }
    return r;
}

/* No launch of the VAE is long: four submissions' worth on a CPU, one on a GPU; three times that
 * where rows are made again, for their neighbours; but for a single row. */
static void check_launches(const struct graph *g, uint64_t limit)
{
    for (size_t i = 0; i < g->nodes.count; i++) {
        const struct node *n = &g->nodes.items[i];
        bool is_row = n->op == OP_gemm && n->args.gemm.height == 1;
        if (!is_row && node_cost(n).macs > limit)
            fail_msg("%s: %g GMAC in one launch", n->name, 1e-9 * (double)node_cost(n).macs);
    }
}

struct expectation {
    bool is_cpu;
    uint64_t texels, room;
    uint32_t width, height;
    bool keeps_all; /* of the decoder's planes */
    double work;    /* the decoder's, of what it is at least */
};

static const struct expectation fits[] = {
    {true, 1u << 27, 8192 * MIB, 512, 512, true, 1.001},
    {false, 1u << 16, 8192 * MIB, 512, 512, true, 1.001},
    {false, 1u << 27, 8192 * MIB, 768, 512, true, 1.001},
    {true, 1u << 16, 8192 * MIB, 1024, 1024, false, 1.35},
    {false, 1u << 27, 8192 * MIB, 1024, 1024, false, 1.35},
    {true, 1u << 27, 600 * MIB, 1024, 1024, false, 6},
    {false, 1u << 16, 8192 * MIB, 2048, 2048, false, 9},
};

/* GMAC of a decoder that is built whole: engine.md 1.2. */
static double least_work(uint32_t w, uint32_t h)
{
    double n = (double)w * h / 64;

    return 1e9 * (0.302754 * n + 1.024e-6 * n * n);
}

static void test_what_fits(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(fits); i++) {
        const struct expectation *e = &fits[i];
        struct caps caps = device(e->is_cpu, e->texels);
        struct session_layout l;
        struct fit found = {0};
        struct fault f = {0};
        if (fit(&caps, e->room, e->width, e->height, &l, &found, &f) < 0)
            fail_msg("%ux%u: %s", e->width, e->height, f.text);
        double work = (double)graph_cost(found.graphs[SESSION_DECODE]).macs;
        (void)printf("%ux%u: decoder %.2f times the least work, %llu MB, encoder %llu MB\n",
                     e->width, e->height, work / least_work(e->width, e->height),
                     (unsigned long long)(found.graphs[SESSION_DECODE]->arena_size / MIB),
                     (unsigned long long)(found.graphs[SESSION_IMAGE]->arena_size / MIB));
        assert_true(found.arena_size <= 1024 * MIB && found.arena_size <= e->room);
        assert_int_equal(l.decode.keep == 0, e->keeps_all);
        assert_true(work <= e->work * 1.01 * least_work(e->width, e->height));
        for (int g = SESSION_DECODE; g <= SESSION_IMAGE; g++)
            check_launches(found.graphs[g],
                           (e->is_cpu ? 4ull << 30 : 32ull << 30) * (e->keeps_all ? 1 : 3));
        fit_done(&found);
    }
}

static void test_what_would_fit(void **state)
{
    struct caps caps = device(false, 1u << 16);
    struct session_layout l;
    struct fit found = {0};
    struct fault f = {0};
    unsigned w, h, ask_w, ask_h;

    (void)state;
    assert_int_equal(fit(&caps, 300 * MIB, 2048, 1024, &l, &found, &f), -EFBIG);
    (void)printf("%s\n", f.text);
    assert_int_equal(sscanf(f.text, "%ux%u is more than this device holds, %ux%u would fit", &ask_w,
                            &ask_h, &w, &h),
                     4);
    assert_int_equal(ask_w, 2048);
    assert_true(w >= 512 && w < 2048 && w % 8 == 0 && h % 8 == 0);
    if (fit(&caps, 300 * MIB, w, h, &l, &found, &f) < 0)
        fail_msg("%ux%u was promised: %s", w, h, f.text);
    fit_done(&found);
    assert_int_equal(fit(&caps, 300 * MIB, w + 64, h + 32, &l, &found, &f), -EFBIG);
    assert_int_equal(fit(&caps, 8 * MIB, 512, 512, &l, &found, &f), -EFBIG);
    assert_non_null(strstr(f.text, "no smaller size"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fits),
        cmocka_unit_test(test_what_would_fit),
    };

    return cmocka_run_group_tests_name("fit", tests, NULL, NULL);
}
