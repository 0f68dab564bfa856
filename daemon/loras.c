#include "daemon/loras.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vk/base/file.h"
#include "vk/pipeline/request.h"

#define ENDING ".safetensors"

static int check_one(const char *directory, const char *name, struct fault *f)
{
    const char *ending = file_has_ending(name, ENDING) ? "" : ENDING;
    char path[PATH_MAX];

    int r = request_check_lora_name(name, f);
    if (r == 0 && file_path(path, NULL, "%s/%s%s", directory, name, ending) < 0)
        return fault_set(f, -EINVAL, "lora: %.128s…: its path is too long", name);
    if (r == 0 && access(path, R_OK) < 0)
        return fault_set(f, -EINVAL, "lora: %.128s: %s", name,
                         errno == ENOENT ? "there is none of this name" : strerror(errno));
    return r;
}

int loras_check(const char *text, const char *directory, struct fault *f)
{
    struct request_lora loras[REQUEST_LORAS_MAX];
    uint32_t count = 0;
    int r = request_loras(text, loras, &count, f);

    for (uint32_t i = 0; i < count && r == 0; i++)
        r = check_one(directory, loras[i].name, f);
    return r;
}
