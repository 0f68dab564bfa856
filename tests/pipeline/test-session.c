/* The graphs of a session, counted without a device: launches, work, bytes, weights of an SD
 * 1.5-shaped model at 512x512 against the architecture's own figures; barriers of every graph, each
 * one needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/barriers.h"
#include "tests/support/device.h"
#include "vk/pipeline/sd15.h"
#include "vk/pipeline/session.h"

struct counted {
    struct weights *weights;
    struct graph *graphs[SESSION_GRAPH_COUNT];
    struct program programs[SESSION_GRAPH_COUNT];
};

static int count_all(void **state)
{
    static struct counted c;
    struct session_shape shape = {.width = 512, .height = 512, .batch = 2};
    struct session_layout layout;
    struct fault f = {0};

    if (weights_open(NULL, &c.weights, &f) < 0)
        return -1;
    session_layout_make(&sd15, &shape, &layout);
    for (int i = 0; i < SESSION_GRAPH_COUNT; i++) {
        if (session_build_graph(&sd15, c.weights, &layout, (enum session_graph)i, false,
                                &c.graphs[i], &f) < 0 ||
            program_make(c.graphs[i], &caps_of_lavapipe, 0, &c.programs[i], &f) < 0) {
            (void)fprintf(stderr, "%s\n", f.text);
            return -1;
        }
    }
    *state = &c;
    return 0;
}

static int free_all(void **state)
{
    struct counted *c = *state;

    for (int i = 0; i < SESSION_GRAPH_COUNT; i++) {
        program_done(&c->programs[i]);
        graph_free(c->graphs[i]);
    }
    weights_free(c->weights);
    return 0;
}

static void near(double got, double want, double tolerance)
{
    if (fabs(got / want - 1) > tolerance)
        fail_msg("%g, want %g within %g %%", got, want, 100 * tolerance);
}

/* 401.64 GMAC an evaluation, of which 1.48 are the context's keys and values, made once per job. */
static void test_work(void **state)
{
    const struct counted *c = *state;

    near((double)graph_cost(c->graphs[SESSION_DENOISE]).macs, 2 * 400.16e9, 0.005);
    near((double)graph_cost(c->graphs[SESSION_ENCODE]).macs, 6.65e9, 0.01);
    near((double)graph_cost(c->graphs[SESSION_CONTEXT]).macs, 2 * 1.48e9, 0.01);
    near((double)graph_cost(c->graphs[SESSION_DECODE]).macs, 1257.3e9, 0.005);
    near((double)graph_cost(c->graphs[SESSION_IMAGE]).macs, 558.3e9, 0.005);
}

static void test_work_issued(void **state)
{
    const struct counted *c = *state;
    struct op_cost cost = graph_cost(c->graphs[SESSION_DENOISE]);

    assert_true((double)cost.macs_issued <= 1.08 * 800e9);
}

static void test_launches(void **state)
{
    const struct counted *c = *state;
    uint32_t launches = c->programs[SESSION_DENOISE].launches - 2; /* sampler_step, advance */

    (void)printf("%u dispatches per U-Net evaluation, %.2f GB per step\n", launches,
                 1e-9 * (double)(graph_cost(c->graphs[SESSION_DENOISE]).bytes_read +
                                 graph_cost(c->graphs[SESSION_DENOISE]).bytes_written));
    assert_true(launches <= 450);
}

static void test_bytes(void **state)
{
    const struct counted *c = *state;
    struct op_cost cost = graph_cost(c->graphs[SESSION_DENOISE]);

    assert_true((double)(cost.bytes_read + cost.bytes_written) <= 1.6 * 3.8e9);
}

/* 859.52 M + 123.06 M + 83.65 M parameters in half precision, some vectors in single. */
static void test_weights(void **state)
{
    const struct counted *c = *state;

    near((double)weights_total_bytes(c->weights), 2 * (859.52e6 + 123.06e6 + 83.65e6), 0.005);
}

/* The transients share memory: the decoder's largest tensor at 512x512 is 134 MB. */
static void test_arena(void **state)
{
    const struct counted *c = *state;

    for (int i = 0; i < SESSION_GRAPH_COUNT; i++)
        assert_true(c->graphs[i]->arena_size <= 480e6);
    assert_true(c->graphs[SESSION_DENOISE]->arena_size <= 120e6);
}

static uint32_t missing_without(const struct program *p, uint32_t at, struct command *scratch)
{
    struct program cut = {.commands = scratch, .count = 0};
    uint32_t from = at, to = at + 1;

    /* only the stretch between the neighbouring barriers matters */
    while (from > 0 && p->commands[from - 1].kind == COMMAND_LAUNCH)
        from--;
    while (to < p->count && p->commands[to].kind == COMMAND_LAUNCH)
        to++;
    for (uint32_t i = from; i < to; i++) {
        if (i != at)
            scratch[cut.count++] = p->commands[i];
    }
    return barriers_missing(&cut, NULL, NULL);
}

static void test_barriers(void **state)
{
    const struct counted *c = *state;

    for (int g = 0; g < SESSION_GRAPH_COUNT; g++) {
        const struct program *p = &c->programs[g];
        struct command *scratch = calloc(p->count, sizeof *scratch);
        assert_non_null(scratch);
        assert_int_equal(barriers_missing(p, NULL, NULL), 0);
        for (uint32_t i = 0; i < p->count; i++) {
            if (p->commands[i].kind == COMMAND_BARRIER)
                assert_true(missing_without(p, i, scratch) > 0);
        }
        free(scratch);
    }
}

/* What a small device cannot bind is refused with the node's name, before anything is allocated. */
static void test_narrow_device(void **state)
{
    const struct counted *c = *state;
    struct caps narrow = caps_of_lavapipe;
    struct program p;
    struct fault f = {0};

    narrow.max_texels = 65536;
    narrow.max_binding = 64u << 20;
    assert_true(program_make(c->graphs[SESSION_DECODE], &narrow, 0, &p, &f) < 0);
    assert_non_null(strstr(f.text, "decoder.up_blocks"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work),     cmocka_unit_test(test_work_issued),
        cmocka_unit_test(test_launches), cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_weights),  cmocka_unit_test(test_arena),
        cmocka_unit_test(test_barriers), cmocka_unit_test(test_narrow_device),
    };

    return cmocka_run_group_tests_name("session", tests, count_all, free_all);
}
