/* pulse: silence and standstill as a table of looks and beats; the limit as a table of histories.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/pulse.h"
#include "vk/base/cleanup.h"

#define SEC UINT64_C(1000000)

static const struct pulse_limits limits = {
    .quiet_usec = 10 * SEC,
    .still_min_usec = 60 * SEC,
    .still_max_usec = 600 * SEC,
    .look_usec = SEC,
};

static void test_limit(void **state)
{
    static const struct {
        bool is_proven;
        uint64_t slowest, want; /* seconds */
    } rows[] = {
        {false, 0, 600}, {false, 1, 600},  {true, 0, 60},         {true, 1, 60},
        {true, 7, 60},   {true, 8, 64},    {true, 74, 592},       {true, 75, 600},
        {true, 76, 600}, {true, 599, 600}, {true, 1u << 30, 600},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct pulse p = {.is_proven = rows[i].is_proven, .slowest_usec = rows[i].slowest * SEC};
        assert_int_equal(pulse_still_limit(&p, &limits), rows[i].want * SEC);
    }
}

static void test_stuck(void **state)
{
    static const struct {
        uint64_t quiet, still; /* seconds */
        bool is_proven;
        const char *why; /* NULL: it is well */
    } rows[] = {
        {0, 0, true, NULL},
        {10, 0, true, NULL},
        {11, 0, true, "heartbeat"},
        {0, 60, true, NULL},
        {0, 61, true, "no progress for 61 s"},
        {0, 600, false, NULL},
        {0, 601, false, "no progress"},
        {11, 601, false, "heartbeat"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct pulse p = {.quiet_usec = rows[i].quiet * SEC,
                          .still_usec = rows[i].still * SEC,
                          .is_proven = rows[i].is_proven};
        char why[96] = "";
        assert_int_equal(pulse_is_stuck(&p, &limits, why, sizeof why), rows[i].why != NULL);
        if (rows[i].why)
            assert_non_null(strstr(why, rows[i].why));
    }
}

/* Looks a second apart, each after a beat with this progress (-1: none). */
static void test_histories(void **state)
{
    enum { SILENT = -1, STANDS = -2 };
    static const struct {
        int seconds;
        int kind; /* SILENT, STANDS, or n: progress every n seconds */
        bool must_advance;
        uint64_t quiet, still, slowest; /* seconds, afterwards */
    } rows[] = {
        {30, SILENT, false, 30, 0, 0}, {30, STANDS, false, 1, 0, 0}, {30, STANDS, true, 1, 30, 0},
        {30, 1, true, 1, 1, 1},        {30, 5, true, 1, 5, 5},       {31, 10, true, 1, 1, 10},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct pulse p = {.progress = 7};
        uint64_t progress = 7;
        for (int t = 0; t < rows[i].seconds; t++) {
            if (rows[i].kind != SILENT)
                pulse_on_packet(&p);
            progress += rows[i].kind > 0 && t > 0 && t % rows[i].kind == 0;
            if (rows[i].kind != SILENT)
                pulse_on_beat(&p, progress);
            pulse_on_look(&p, &limits, SEC, rows[i].must_advance);
        }
        assert_int_equal(p.quiet_usec, rows[i].quiet * SEC);
        assert_int_equal(p.still_usec, rows[i].still * SEC);
        assert_int_equal(p.slowest_usec, rows[i].slowest * SEC);
    }
}

/* A manager that was stopped for an hour finds its worker well; one that is late at every look
 * still notices. */
static void test_own_delay(void **state)
{
    struct pulse p = {.is_proven = true};
    char why[96];

    (void)state;
    pulse_on_look(&p, &limits, 3600 * SEC, true);
    assert_false(pulse_is_stuck(&p, &limits, why, sizeof why));
    assert_int_equal(p.quiet_usec, 2 * SEC);
    for (int i = 0; i < 5; i++)
        pulse_on_look(&p, &limits, 3600 * SEC, true);
    assert_true(pulse_is_stuck(&p, &limits, why, sizeof why));
}

static void test_new_work(void **state)
{
    struct pulse p = {.is_proven = true, .still_usec = 59 * SEC};

    (void)state;
    pulse_on_work(&p);
    pulse_on_look(&p, &limits, SEC, true);
    assert_int_equal(p.still_usec, SEC);
    assert_int_equal(p.slowest_usec, 0);
    pulse_on_look(&p, &limits, SEC, false); /* held: what was before does not count either */
    assert_int_equal(p.still_usec, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),     cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_histories), cmocka_unit_test(test_own_delay),
        cmocka_unit_test(test_new_work),
    };

    return cmocka_run_group_tests_name("pulse", tests, NULL, NULL);
}
