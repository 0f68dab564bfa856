/* tables — puts the tables of the code into the shipped texts; run by "make tables". Says what it
 * has changed. */
#include <stdio.h>
#include <string.h>

#include "tests/support/tables.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

static int renew(const char *path, struct fault *f)
{
    _cleanup_(freep) char *old_text = NULL, *text = NULL;
    size_t length;

    int r = file_read(path, 1u << 20, &old_text, &length, f);
    if (r < 0 || (r = tables_render(path, &text, f)) < 0 || strcmp(old_text, text) == 0)
        return r;
    (void)printf("%s\n", path);
    return file_write_atomic(path, text, strlen(text), f);
}

int main(void)
{
    struct fault f = {0};

    for (size_t i = 0; i < tables_file_count; i++) {
        if (renew(tables_files[i], &f) >= 0)
            continue;
        (void)fprintf(stderr, "tables: %s\n", f.text);
        return 1;
    }
    return 0;
}
