/* thermal: made-up boards in a folder; the decision as a table. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/thermal.h"
#include "tests/support/folder.h"
#include "vk/base/cleanup.h"

struct board {
    const char *path;
    int fd;
};

static struct board open_board(const char *path)
{
    struct board board = {path, open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};

    assert_true(board.fd >= 0);
    return board;
}

static void put(const struct board *board, const char *zone, const char *name, const char *text)
{
    char path[160];

    (void)snprintf(path, sizeof path, "%s/%s", board->path, zone);
    assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
    (void)snprintf(path, sizeof path, "%s/%s/%s", board->path, zone, name);
    _cleanup_(fclosep) FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
}

static void test_decision(void **state)
{
    static const struct {
        unsigned zones;
        int32_t temperature;
        bool was_hot, is_hot;
    } rows[] = {
        {0, 99000, false, false}, {0, 99000, true, false}, {1, 79999, false, false},
        {1, 80000, false, true},  {1, 79999, true, true},  {1, 75000, true, true},
        {1, 74999, true, false},  {1, -5000, true, false}, {1, 120000, false, true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct thermal t = {
            .zones = rows[i].zones, .temperature = rows[i].temperature, .limit = 80000};
        assert_int_equal(thermal_is_hot(&t, rows[i].was_hot), rows[i].is_hot);
    }
}

/* One zone; its trips as "type temp" each. */
static void test_trips(void **state)
{
    static const struct {
        const char *temp, *trips[4][2];
        int32_t limit; /* 0: the zone does not count */
    } rows[] = {
        {"50000\n",
         {{"active\n", "40000\n"}, {"passive\n", "80000\n"}, {"critical\n", "95000\n"}},
         80000},
        {"50000\n", {{"passive", "85000"}, {"passive", "70000"}}, 70000},
        {"50000\n", {{"critical\n", "110000\n"}, {"hot\n", "90000\n"}}, 80000},
        {"50000\n", {{"critical\n", "100000\n"}}, 90000},
        {"50000\n", {{"passive\n", "0\n"}, {"critical\n", "100000\n"}}, 90000},
        {"50000\n", {{"passive\n", "-274000\n"}, {"critical\n", "100000\n"}}, 90000},
        {"50000\n", {{"passive\n", "2147483647\n"}}, 0},
        {"50000\n", {{"passive\n", "99999999999999999999\n"}}, 0},
        {"50000\n", {{"active\n", "60000\n"}}, 0},
        {"50000\n", {{"passivee\n", "60000\n"}}, 0},
        {"50000\n", {{NULL, NULL}}, 0},
        {"hello\n", {{"passive\n", "80000\n"}}, 0},
        {"\n", {{"passive\n", "80000\n"}}, 0},
        {"", {{"passive\n", "80000\n"}}, 0},
        {"50000x\n", {{"passive\n", "80000\n"}}, 0},
        {"-273000\n", {{"passive\n", "80000\n"}}, 0},
    };
    struct board made = open_board(*state), *board = &made;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        static const char zone[] = "thermal_zone0";
        struct thermal t = {.zones = 77};
        char name[40];
        put(board, zone, "type", "cpu-thermal\n");
        put(board, zone, "temp", rows[i].temp);
        for (size_t k = 0; k < 4; k++) {
            (void)snprintf(name, sizeof name, "trip_point_%zu_type", k);
            put(board, zone, name, rows[i].trips[k][0] ? rows[i].trips[k][0] : "none\n");
            (void)snprintf(name, sizeof name, "trip_point_%zu_temp", k);
            put(board, zone, name, rows[i].trips[k][1] ? rows[i].trips[k][1] : "1000\n");
        }
        assert_int_equal(thermal_read(board->fd, &t), 0);
        assert_int_equal(t.zones, rows[i].limit != 0);
        assert_int_equal(t.limit, rows[i].limit);
        if (rows[i].limit)
            assert_string_equal(t.name, "thermal_zone0 (cpu-thermal)");
    }
    (void)close(board->fd);
}

static void test_hottest_zone(void **state)
{
    struct board made = open_board(*state), *board = &made;
    struct thermal t;

    put(board, "thermal_zone0", "temp", "60000\n");
    put(board, "thermal_zone0", "trip_point_0_type", "passive\n");
    put(board, "thermal_zone0", "trip_point_0_temp", "90000\n");
    put(board, "thermal_zone1", "temp", "44000\n"); /* cooler, and nearer to its limit */
    put(board, "thermal_zone1", "type", "a name of far more than a dozen characters\n");
    put(board, "thermal_zone1", "trip_point_0_type", "passive\n");
    put(board, "thermal_zone1", "trip_point_0_temp", "45000\n");
    put(board, "thermal_zone2", "type", "no temperature\n");
    put(board, "cooling_device0", "temp", "100000\n");
    put(board, "cooling_device0", "trip_point_0_type", "passive\n");
    put(board, "cooling_device0", "trip_point_0_temp", "10000\n");
    assert_int_equal(symlinkat("thermal_zone0", board->fd, "thermal_zone3"), 0); /* as in sysfs */
    assert_int_equal(thermal_read(board->fd, &t), 0);
    assert_int_equal(t.zones, 3);
    assert_int_equal(t.temperature, 44000);
    assert_int_equal(t.limit, 45000);
    assert_string_equal(t.name, "thermal_zone1 (a name of fa)");
    assert_false(thermal_is_hot(&t, false));
    put(board, "thermal_zone0", "temp", "91500\n");
    assert_int_equal(thermal_read(board->fd, &t), 0);
    assert_int_equal(t.temperature, 91500);
    assert_non_null(strstr(t.name, "(no type)")); /* zone 0 or 3: they are one */
    assert_true(thermal_is_hot(&t, false));
    (void)close(board->fd);
}

static void test_no_zones(void **state)
{
    struct board made = open_board(*state), *board = &made;
    struct thermal t = {.zones = 9, .temperature = 99, .limit = 1};
    _cleanup_(closep) int file = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_int_equal(thermal_read(board->fd, &t), 0);
    assert_false(thermal_is_hot(&t, true));
    t.zones = 9;
    assert_int_equal(thermal_read(-1, &t), 0);
    assert_int_equal(t.zones, 0);
    t.zones = 9;
    assert_int_equal(thermal_read(file, &t), -ENOTDIR);
    assert_int_equal(t.zones, 0);
    (void)close(board->fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decision),
        cmocka_unit_test_setup_teardown(test_trips, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_hottest_zone, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_no_zones, folder_setup, folder_teardown),
    };

    return cmocka_run_group_tests_name("thermal", tests, NULL, NULL);
}
