/* plan: no two tensors alive at the same time share a byte; memory is reused; bad graphs are named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "tests/graph/random-graph.h"
#include "vk/graph/plan.h"

/* First and last node touching a tensor, found without the planner's help. */
static void lifetime(const struct graph *g, tensor t, uint32_t *ret_first, uint32_t *ret_last)
{
    *ret_first = UINT32_MAX;
    *ret_last = 0;
    for (uint32_t i = 0; i < g->nodes.count; i++) {
        for (uint32_t s = 0; s < OP_SLOTS; s++) {
            if (g->nodes.items[i].slot[s] != t)
                continue;
            if (*ret_first == UINT32_MAX)
                *ret_first = i;
            *ret_last = i;
        }
    }
    if (g->tensors.items[t].keep)
        *ret_last = UINT32_MAX;
}

static void check_pair(const struct graph *g, tensor a, tensor b)
{
    const struct tensor_info *x = &g->tensors.items[a], *y = &g->tensors.items[b];
    uint32_t first_a, last_a, first_b, last_b;

    lifetime(g, a, &first_a, &last_a);
    lifetime(g, b, &first_b, &last_b);
    if (first_a > last_b || first_b > last_a)
        return;
    assert_true(x->offset + x->size <= y->offset || y->offset + y->size <= x->offset);
}

static void test_random_graphs(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 20; seed++) {
        struct graph *g = random_graph(seed, 80);
        uint64_t sum = 0;
        assert_non_null(g);
        assert_int_equal(graph_plan(g, NULL), 0);
        for (tensor a = 2; a < g->tensors.count; a++) {
            const struct tensor_info *t = &g->tensors.items[a];
            assert_int_equal(t->offset % GPU_OFFSET_ALIGNMENT, 0);
            assert_true(t->offset >= g->transient_base);
            assert_true(t->offset + t->size <= g->arena_size);
            sum += t->size;
            for (tensor b = a + 1; b < g->tensors.count; b++)
                check_pair(g, a, b);
        }
        assert_true(g->arena_size - g->transient_base < sum); /* something was shared */
        graph_free(g);
    }
}

/* A chain needs two tensors at a time, whatever its length. */
static void test_chain_is_two_tensors(void **state)
{
    struct graph *g = random_graph(3, 40);

    (void)state;
    assert_non_null(g);
    for (uint32_t i = 0; i < 40; i++) {
        g->nodes.items[i].slot[0] = i + 1;
        g->nodes.items[i].slot[3] = 0;
        g->tensors.items[i + 2].keep = false;
        g->tensors.items[i + 2].h = 64;
    }
    assert_int_equal(graph_plan(g, NULL), 0);
    assert_int_equal(g->arena_size - g->transient_base, 2 * 64 * 16);
    graph_free(g);
}

static void test_read_before_write(void **state)
{
    struct graph *g = random_graph(5, 10);
    struct fault f = {0};

    (void)state;
    assert_non_null(g);
    g->nodes.items[2].slot[0] = 9;
    assert_int_equal(graph_plan(g, &f), -EINVAL);
    assert_non_null(strstr(f.text, "slot 0 reads tensor 9 before it is written"));
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_chain_is_two_tensors),
        cmocka_unit_test(test_read_before_write),
    };

    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
