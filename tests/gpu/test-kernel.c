/* A pipeline that is made is told and counts as progress; one that is there already does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "tests/support/device.h"
#include "vk/gpu/gpu-private.h"

static unsigned made;

static void on_kernel(void *userdata)
{
    assert_ptr_equal(userdata, &made);
    made++;
}

static void tells_of_new_pipelines(void **state)
{
    const struct gpu_options options = {.allow_cpu = -1, .on_kernel = on_kernel, .userdata = &made};
    struct gpu_kernel *kernel = NULL, *again = NULL;
    struct fault f = {0};

    (void)state;
    must(gpu_open(&options, &gpu, &f), &f);
    uint64_t progress = gpu_progress(gpu);
    must(gpu_kernel_get(gpu, "advance.ssbo", NULL, 0, &kernel, &f), &f);
    assert_int_equal(made, 1);
    assert_int_equal(gpu_progress(gpu), progress + 1);
    must(gpu_kernel_get(gpu, "advance.ssbo", NULL, 0, &again, &f), &f);
    assert_ptr_equal(kernel, again);
    assert_int_equal(gpu_kernel_get(gpu, "no such kernel", NULL, 0, &again, &f), -ENOENT);
    assert_int_equal(made, 1);
    assert_int_equal(gpu_progress(gpu), progress + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_of_new_pipelines),
    };

    return cmocka_run_group_tests_name("kernel", tests, NULL, close_gpu);
}
