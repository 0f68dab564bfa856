/* build — where this build's programs are, found from the test's own place
 * (BUILD/tests/DIR/test-x). */
#pragma once

#include <stddef.h>

/* Absolute path of `name` ("diffused", "tests/fake-worker") in the build folder; "" if it does not
 * fit. */
void build_path(const char *name, char *ret_path, size_t size);
