/* loras — names, weights and files of the row lora. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/loras.h"
#include "tests/support/folder.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

static void put(const char *folder, const char *name)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_write_atomic(path, "x", 1, NULL), 0);
}

static void test_good(void **state)
{
    static const char *const texts[] = {
        "", "ink", "ink:0.5", "ink:-1e-1", " ink , b.c ", "ink:1,b.c:100,ink:0", "ink.safetensors"};
    const char *folder = *state;
    struct fault f = {0};

    put(folder, "ink.safetensors");
    put(folder, "b.c.safetensors");
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (loras_check(texts[i], folder, &f) < 0)
            fail_msg("%s", f.text);
    assert_int_equal(loras_check(NULL, folder, &f), 0);
}

static void test_bad(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {",", "an empty name"},
        {"ink,", "an empty name"},
        {"../ink", "want a name, not a path"},
        {"a/ink", "want a name, not a path"},
        {".ink", "want a name, not a path"},
        {":1", "an empty name"},
        {"in\nk", "a control character"},
        {"ink:", "ink:: want NAME:weight"},
        {"ink:0x1", "want NAME:weight"},
        {"ink:nan", "want NAME:weight"},
        {"ink:100.1", "a number from -100 to 100"},
        {"pen", "pen: there is none of this name"},
        {"ink:0.5:1", "ink:0.5: there is none"},
        {"ink,ink,ink,ink,ink,ink,ink,ink,ink,ink,ink,ink,ink,ink,ink,ink,ink", "at most 16"},
    };
    const char *folder = *state;

    put(folder, "ink.safetensors");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fault f = {0};
        assert_int_equal(loras_check(rows[i].text, folder, &f), -EINVAL);
        if (!strstr(f.text, rows[i].says))
            fail_msg("%s: %s", rows[i].text, f.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_bad, folder_setup, folder_teardown),
    };

    return cmocka_run_group_tests_name("loras", tests, NULL, NULL);
}
