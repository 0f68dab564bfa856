/* must — how tests end on a fault, and where they leave out what takes long. */
#pragma once

#include <stdbool.h>

#include "vk/base/fault.h"

/* Ends the test with the fault's text when r < 0. */
void must(int r, const struct fault *f);

/* Is the driver one on which long tests leave their long parts out (tests/run)? */
bool is_slow_device(void);
/* Skips the test there. */
void skip_when_slow(void);
