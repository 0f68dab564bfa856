/* file: paths, endings, what errno becomes, files whole or absent. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/folder.h"
#include "vk/base/file.h"

static void test_path(void **state)
{
    char path[PATH_MAX], part[PATH_MAX];
    struct fault f = {0};

    (void)state;
    assert_int_equal(file_path(path, &f, "%s/%s.%d", "a", "b", 7), 0);
    assert_string_equal(path, "a/b.7");
    memset(part, 'x', sizeof part);
    part[PATH_MAX - 3] = '\0';
    assert_int_equal(file_path(path, &f, "%s/y", part), 0); /* the longest */
    part[PATH_MAX - 3] = 'x';
    part[PATH_MAX - 2] = '\0';
    assert_int_equal(file_path(path, &f, "%s/y", part), -ENAMETOOLONG);
    assert_non_null(strstr(f.text, "xxx…: path too long"));
}

static void test_names(void **state)
{
    (void)state;
    assert_true(file_has_ending("a.json", ".json") && file_has_ending(".json", ".json"));
    assert_false(file_has_ending("json", ".json") || file_has_ending("a.json5", ".json"));
    assert_true(file_is_pickle("model.ckpt") && file_is_pickle("x.bin") && file_is_pickle(".pt"));
    assert_false(file_is_pickle("x.safetensors") || file_is_pickle("pt") || file_is_pickle(""));
    assert_int_equal(file_error(ENOENT), -ENOENT);
    assert_int_equal(file_error(EIO), -ENODATA); /* -EIO says that a device is lost */
}

static void test_contents(void **state)
{
    char path[PATH_MAX], *data = NULL;
    struct fault f = {0};
    size_t size = 0;

    assert_int_equal(file_path(path, &f, "%s/x", (const char *)*state), 0);
    assert_int_equal(file_read(path, 10, &data, &size, &f), -ENOENT);
    assert_int_equal(file_write_atomic(path, "old", 3, &f), 0);
    assert_int_equal(file_write_atomic(path, "newer", 5, &f), 0);
    assert_int_equal(file_read(path, 5, &data, &size, &f), 0);
    assert_int_equal(size, 5);
    assert_string_equal(data, "newer");
    free(data);
    assert_int_equal(file_read(path, 4, &data, &size, &f), -EFBIG);
    assert_int_equal(file_read(*state, 10, &data, &size, &f), -EINVAL);
    assert_non_null(strstr(f.text, "not a regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_names),
        cmocka_unit_test_setup_teardown(test_contents, folder_setup, folder_teardown),
    };

    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
