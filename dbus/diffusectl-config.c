/* diffusectl-config — what the daemon's configuration says, also where no daemon runs: the daemon's
 * own program reads it. */
#include <stdlib.h>
#include <string.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"

#define CONFIG_FILE "/etc/diffused/diffused.conf"

void ctl_config_path(const struct ctl_config *c, char ret_path[CTL_PATH_SIZE])
{
    if (c->file || !c->devel)
        (void)snprintf(ret_path, CTL_PATH_SIZE, "%s", c->file ? c->file : CONFIG_FILE);
    else
        (void)snprintf(ret_path, CTL_PATH_SIZE, "%s/diffused.conf", c->devel);
}

/* `diffused FLAG` on this configuration. */
static int ask(const struct ctl_config *c, const char *flag, struct ctl_output *ret_output)
{
    const char *arguments[8] = {"diffused", flag};
    struct ctl_program program = {.name = "diffused", .arguments = arguments, .directory = -1};
    size_t n = 2;

    if (c->file) {
        arguments[n++] = "-c";
        arguments[n++] = c->file;
    }
    if (c->devel) {
        arguments[n++] = "--devel";
        arguments[n++] = c->devel;
    }
    return ctl_run(&program, ret_output);
}

int ctl_config_check(const struct ctl_config *c, struct ctl_output *ret_output)
{
    return ask(c, "--check-config", ret_output);
}

int ctl_config_read(struct ctl_config *c)
{
    struct ctl_output o;

    int code = ask(c, "--print-config", &o);
    if (code)
        return code;
    c->complaint = strdup(ctl_first_line(o.err));
    free(o.err);
    if (!c->complaint) {
        free(o.out);
        return ctl_error(CTL_EXIT_FAILED, "out of memory");
    }
    if (o.status == 0)
        c->text = o.out;
    else
        free(o.out);
    return 0;
}

/* Lines are "[section]", "key = value", and "#key = value" for what is built in. */
bool ctl_config_get(const struct ctl_config *c, const char *section, const char *key,
                    char *ret_value, size_t size)
{
    char head[64], set[64];
    bool inside = false;

    (void)snprintf(head, sizeof head, "[%s]\n", section);
    (void)snprintf(set, sizeof set, "%s =", key);
    for (const char *line = c->text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (*line == '[')
            inside = strncmp(line, head, strlen(head)) == 0;
        const char *text = line + (*line == '#');
        if (!inside || strncmp(text, set, strlen(set)) != 0)
            continue;
        text += strlen(set);
        text += strspn(text, " ");
        (void)snprintf(ret_value, size, "%.*s", (int)strcspn(text, "\n"), text);
        return *ret_value != '\0';
    }
    return false;
}

void ctl_config_done(struct ctl_config *c)
{
    free(c->text);
    free(c->complaint);
}
