/* half: every binary16 value survives the way through f32; ties go to even. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "vk/base/half.h"

static void test_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float x = half_to_float((uint16_t)h);
        if (isnan(x))
            assert_true((half_from_float(x) & 0x7fff) > 0x7c00);
        else
            assert_int_equal(half_from_float(x), h);
    }
}

static void test_ties_to_even(void **state)
{
    static const struct {
        float x;
        uint16_t want;
    } rows[] = {
        {1.0f + 0x1p-11f, 0x3c00},   {1.0f + 3 * 0x1p-11f, 0x3c02},
        {1.0f + 0x1.8p-11f, 0x3c01}, {0x1p-25f, 0x0000},
        {0x1.8p-24f, 0x0002},        {0x1.8p-25f, 0x0001},
        {65519.0f, 0x7bff},          {65520.0f, 0x7c00},
        {-65520.0f, 0xfc00},         {0x1.ff8p-15f, 0x03ff},
        {0x1.ffcp-15f, 0x0400},      {-0.0f, 0x8000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(half_from_float(rows[i].x), rows[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_ties_to_even),
    };

    return cmocka_run_group_tests_name("half", tests, NULL, NULL);
}
