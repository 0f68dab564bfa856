/* queue: order of arrival also for jobs that come back, and the limit. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/queue.h"

static void test_order(void **state)
{
    struct job jobs[5] = {{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}, {.id = 5}};
    static const unsigned arrival[] = {1, 2, 4, 0, 3};
    struct queue q;

    (void)state;
    queue_init(&q, 10);
    assert_null(queue_first(&q));
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
    assert_ptr_equal(queue_first(&q), &jobs[0]);
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
        assert_int_equal(queue_admit(&q, &f), 0);
        assert_int_equal(queue_insert(&q, &jobs[i]), 0);
    }
    assert_int_equal(queue_admit(&q, &f), -ENOBUFS);
    assert_non_null(strstr(f.text, "limit is 2"));
    assert_int_equal(queue_insert(&q, &jobs[2]),
                     0); /* was admitted once: comes back over the limit */
    assert_int_equal(q.jobs.count, 3);
    queue_remove(&q, &jobs[0]);
    queue_remove(&q, &jobs[1]);
    assert_int_equal(queue_admit(&q, &f), 0);
    queue_done(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
