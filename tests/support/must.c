#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

void must(int r, const struct fault *f)
{
    if (r < 0)
        fail_msg("%d: %s", r, f->text);
}

bool is_slow_device(void)
{
    return getenv("DIFFUSED_SLOW_DEVICE") != NULL;
}

void skip_when_slow(void)
{
    if (!is_slow_device())
        return;
    print_message("DIFFUSED_SLOW_DEVICE is set\n");
    skip();
}
