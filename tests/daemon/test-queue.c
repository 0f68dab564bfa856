/* queue: order of arrival also for jobs that come back, and the limit. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/queue.h"

/* The next one, out of the queue: what the manager does. */
static struct job *take(struct queue *queue)
{
    struct job *next = queue_next(queue, NULL, NULL);

    if (next)
        queue_serve(queue, next);
    return next;
}

static void test_order(void **state)
{
    struct job jobs[5] = {{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}, {.id = 5}};
    static const unsigned arrival[] = {1, 2, 4, 0, 3};
    struct queue q;

    (void)state;
    queue_init(&q, 10);
    assert_null(take(&q));
    for (size_t i = 0; i < ARRAY_SIZE(arrival); i++)
        assert_int_equal(queue_insert(&q, &jobs[arrival[i]]), 0);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(queue_position(&q, &jobs[i]), i);
        assert_ptr_equal(q.jobs.items[i], &jobs[i]);
    }
    queue_remove(&q, &jobs[2]);
    queue_remove(&q, &jobs[2]);
    assert_int_equal(q.jobs.count, 4);
    assert_int_equal(queue_position(&q, &jobs[2]), 4);
    assert_int_equal(queue_position(&q, &jobs[3]), 2);
    assert_ptr_equal(take(&q), &jobs[0]);
    queue_done(&q);
}

static void test_limit(void **state)
{
    struct job jobs[3] = {{.id = 1}, {.id = 2}, {.id = 3}};
    struct fault f = {0};
    struct queue q;

    (void)state;
    queue_init(&q, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(queue_admit(&q, 0, &f), 0);
        assert_int_equal(queue_insert(&q, &jobs[i]), 0);
    }
    assert_int_equal(queue_admit(&q, 0, &f), -ENOBUFS);
    assert_non_null(strstr(f.text, "limit is 2"));
    queue_remove(&q, &jobs[1]);
    assert_int_equal(queue_admit(&q, 1, &f), -ENOBUFS); /* one is on its way */
    assert_int_equal(queue_insert(&q, &jobs[1]), 0);
    assert_int_equal(queue_insert(&q, &jobs[2]), 0); /* was admitted once: over the limit */
    assert_int_equal(q.jobs.count, 3);
    queue_remove(&q, &jobs[0]);
    queue_remove(&q, &jobs[1]);
    assert_int_equal(queue_admit(&q, 0, &f), 0);
    queue_done(&q);
}

/* Positions are promises: they must be the order in which jobs are then taken. */
static void check_order(struct queue *q, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < q->jobs.count; k++)
            if (q->jobs.items[k]->id == ids[i])
                assert_int_equal(queue_position(q, q->jobs.items[k]), i);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(take(q)->id, ids[i]);
    assert_null(take(q));
}

static void test_owners_take_turns(void **state)
{
    static const uint64_t first[] = {1, 4, 7, 2, 5, 3, 6}, second[] = {9, 8, 10};
    struct job jobs[] = {{.id = 1, .owner = 10}, {.id = 2, .owner = 10}, {.id = 3, .owner = 10},
                         {.id = 4, .owner = 20}, {.id = 5, .owner = 20}, {.id = 6, .owner = 10},
                         {.id = 7, .owner = 30}, {.id = 8, .owner = 10}, {.id = 9, .owner = 20},
                         {.id = 10, .owner = 10}};
    struct queue q;

    (void)state;
    queue_init(&q, 100);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(queue_insert(&q, &jobs[i]), 0);
    check_order(&q, first, ARRAY_SIZE(first));
    for (size_t i = 7; i < 10; i++)
        assert_int_equal(queue_insert(&q, &jobs[i]), 0);
    check_order(&q, second, ARRAY_SIZE(second)); /* 10 was served last: 20 goes first */
    queue_done(&q);
}

/* Someone who always has one more job must not keep the others waiting. */
static void test_nobody_starves(void **state)
{
    struct job patient = {.id = 1, .owner = 1}, again = {.id = 2, .owner = 2};
    struct queue q;

    (void)state;
    queue_init(&q, 100);
    assert_int_equal(queue_insert(&q, &again), 0);
    assert_ptr_equal(take(&q), &again);
    assert_int_equal(queue_insert(&q, &again), 0);
    assert_int_equal(queue_insert(&q, &patient), 0);
    assert_ptr_equal(take(&q), &patient);
    for (uint32_t uid = 100; uid < 100 + 2 * QUEUE_OWNERS_MAX; uid++) { /* more than remembered */
        struct job one = {.id = uid, .owner = uid};
        assert_int_equal(queue_insert(&q, &one), 0);
        assert_non_null(take(&q));
        queue_remove(&q, &one);
    }
    queue_done(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_owners_take_turns),
        cmocka_unit_test(test_nobody_starves),
    };

    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
