#include "tests/support/socket.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "vk/base/cleanup.h"

bool socket_is_served(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
}
