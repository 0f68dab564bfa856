/* decode — `diffused-worker --decode`: a PNG of ours on standard input becomes rows of R G B on
 * standard output. A process of its own, so that a damaged file ends nothing else. */
#pragma once

#include <stdio.h>

#include "vk/base/fault.h"

/* `in`: a regular file, from its start. -EINVAL when it is no PNG, -EFBIG, -ENOMEM, or errno. */
int decode_to(int in, FILE *out, struct fault *f);
