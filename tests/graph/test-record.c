/* record: every hazard of a program has its barrier, and the checker notices when any one is gone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "tests/graph/random-graph.h"
#include "tests/support/barriers.h"
#include "tests/support/device.h"
#include "vk/graph/plan.h"

static struct graph *planned(uint32_t seed, uint32_t count)
{
    struct graph *g = random_graph(seed, count);

    assert_non_null(g);
    assert_int_equal(graph_plan(g, NULL), 0);
    return g;
}

static void test_hazards_have_barriers(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 30; seed++) {
        struct graph *g = planned(seed, 60);
        struct program p;
        assert_int_equal(program_make(g, &caps_of_lavapipe, 0, &p, NULL), 0);
        assert_int_equal(p.launches, 60);
        assert_int_equal(p.count, p.launches + p.barriers);
        assert_int_equal(barriers_missing(&p, NULL, NULL), 0);
        program_done(&p);
        graph_free(g);
    }
}

/* Takes barrier `at` out: the launches on both sides meet. */
static uint32_t missing_without(const struct program *p, uint32_t at)
{
    struct command *commands = malloc(p->count * sizeof *commands);
    struct program cut = {.commands = commands, .count = p->count - 1};

    assert_non_null(commands);
    memcpy(commands, p->commands, at * sizeof *commands);
    memcpy(commands + at, p->commands + at + 1, (p->count - at - 1) * sizeof *commands);
    uint32_t missing = barriers_missing(&cut, NULL, NULL);
    free(commands);
    return missing;
}

static void test_every_barrier_is_needed(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 10; seed++) {
        struct graph *g = planned(seed, 60);
        struct program p;
        assert_int_equal(program_make(g, &caps_of_lavapipe, 0, &p, NULL), 0);
        assert_true(p.barriers > 10);
        for (uint32_t i = 0; i < p.count; i++) {
            if (p.commands[i].kind == COMMAND_BARRIER)
                assert_true(missing_without(&p, i) > 0);
        }
        program_done(&p);
        graph_free(g);
    }
}

static void test_cuts_bound_the_work(void **state)
{
    struct graph *g = planned(7, 60);
    struct program p;
    uint64_t macs = 0, limit = 60000;

    (void)state;
    assert_int_equal(program_make(g, &caps_of_lavapipe, limit, &p, NULL), 0);
    assert_true(p.chunks > 2);
    assert_int_equal(barriers_missing(&p, NULL, NULL), 0);
    for (uint32_t i = 0; i < p.count; i++) {
        if (p.commands[i].kind == COMMAND_CUT)
            macs = 0;
        if (p.commands[i].kind != COMMAND_LAUNCH)
            continue;
        uint64_t own = node_cost(&g->nodes.items[p.commands[i].node]).macs_issued;
        macs += own;
        assert_true(macs <= limit || macs == own);
    }
    program_done(&p);
    graph_free(g);
}

static void test_texel_bases(void **state)
{
    struct caps narrow = caps_of_lavapipe;
    struct graph *g = planned(9, 20);
    struct program p;

    (void)state;
    assert_int_equal(program_make(g, &caps_of_lavapipe, 0, &p, NULL), 0);
    for (uint32_t i = 0; i < p.count; i++) {
        const struct command *c = &p.commands[i];
        if (c->kind != COMMAND_LAUNCH || !c->dispatch.texel)
            continue;
        tensor x = g->nodes.items[c->node].slot[0];
        assert_int_equal(c->dispatch.push[0] * 16, g->tensors.items[x].offset);
    }
    program_done(&p);
    narrow.max_texels = 16; /* the arena does not fit a view */
    assert_int_equal(program_make(g, &narrow, 0, &p, NULL), 0);
    for (uint32_t i = 0; i < p.count; i++)
        assert_false(p.commands[i].dispatch.texel);
    program_done(&p);
    graph_free(g);
}

static void test_binding_limit(void **state)
{
    struct caps narrow = caps_of_lavapipe;
    struct graph *g = planned(9, 20);
    struct program p;
    struct fault f = {0};

    (void)state;
    narrow.max_texels = 16;
    narrow.max_binding = 64;
    assert_int_equal(program_make(g, &narrow, 0, &p, &f), -EFBIG);
    assert_non_null(strstr(f.text, "node: "));
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hazards_have_barriers),
        cmocka_unit_test(test_every_barrier_is_needed),
        cmocka_unit_test(test_cuts_bound_the_work),
        cmocka_unit_test(test_texel_bases),
        cmocka_unit_test(test_binding_limit),
    };

    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
