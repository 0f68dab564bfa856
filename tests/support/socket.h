/* socket — whether somebody listens on a Unix socket. The file is there before that is so. */
#pragma once

#include <stdbool.h>

bool socket_is_served(const char *path);
