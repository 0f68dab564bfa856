/* The shipped XML is the contract: live introspection must show the same members with the same
 * signatures, in both directions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/testbus.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

/* "method Submit in s in a{sv} out o", "property State s read", "signal Step u u …" */
struct members ARRAY(char *);

static void members_done(struct members *m)
{
    for (size_t i = 0; i < m->count; i++)
        free(m->items[i]);
    array_done(m);
}

/* The value of an attribute within one tag, "" without. */
static void attribute(const char *tag, const char *end, const char *name, char *ret, size_t size)
{
    char key[32];
    const char *at;

    (void)snprintf(key, sizeof key, " %s=\"", name);
    at = memmem(tag, (size_t)(end - tag), key, strlen(key));
    ret[0] = '\0';
    if (at) {
        at += strlen(key);
        (void)snprintf(ret, size, "%.*s", (int)strcspn(at, "\""), at);
    }
}

static bool is_tag(const char *at, const char *name)
{
    return strncmp(at + 1, name, strlen(name)) == 0 && strchr(" >/", at[1 + strlen(name)]);
}

static void add_text(char *line, size_t size, const char *word)
{
    size_t used = strlen(line);

    (void)snprintf(line + used, size - used, " %s", word);
}

static void add_argument(char *line, size_t size, const char *at, const char *end)
{
    char direction[8], type[64];

    attribute(at, end, "direction", direction, sizeof direction);
    attribute(at, end, "type", type, sizeof type);
    if (strncmp(line, "method", 6) == 0)
        add_text(line, size, direction[0] ? direction : "in");
    add_text(line, size, type);
}

static void store(struct members *m, char *line)
{
    if (line[0]) {
        char **slot = array_push(m);
        assert_non_null(slot);
        *slot = strdup(line);
        assert_non_null(*slot);
    }
    line[0] = '\0';
}

static void start_member(char *line, size_t size, const char *kind, const char *at, const char *end)
{
    char name[64], type[64], access[16];

    attribute(at, end, "name", name, sizeof name);
    attribute(at, end, "type", type, sizeof type);
    attribute(at, end, "access", access, sizeof access);
    (void)snprintf(line, size, "%s %s", kind, name);
    if (type[0])
        add_text(line, size, type);
    if (access[0])
        add_text(line, size, access);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Members of one interface, sorted. */
static struct members parse(const char *xml, const char *interface)
{
    static const char *const kinds[] = {"method", "property", "signal"};
    struct members m = {0};
    char line[1024] = "", name[128];
    bool inside = false;

    for (const char *at = strchr(xml, '<'); at; at = strchr(at + 1, '<')) {
        const char *end = strchr(at, '>');
        if (!end)
            break;
        if (is_tag(at, "interface")) {
            attribute(at, end, "name", name, sizeof name);
            inside = strcmp(name, interface) == 0;
        } else if (strncmp(at, "</interface", 11) == 0) {
            store(&m, line);
            inside = false;
        }
        for (size_t k = 0; inside && k < ARRAY_SIZE(kinds); k++) {
            if (is_tag(at, kinds[k])) {
                store(&m, line);
                start_member(line, sizeof line, kinds[k], at, end);
            }
        }
        if (inside && line[0] && is_tag(at, "arg"))
            add_argument(line, sizeof line, at, end);
    }
    qsort(m.items, m.count, sizeof *m.items, compare);
    return m;
}

static char *introspect(sd_bus *client, const char *path)
{
    sd_bus_message *reply = NULL;
    const char *xml = NULL;

    assert_true(sd_bus_call_method(client, TESTBUS_NAME, path,
                                   "org.freedesktop.DBus.Introspectable", "Introspect", NULL,
                                   &reply, "") >= 0);
    assert_true(sd_bus_message_read(reply, "s", &xml) >= 0);
    char *copy = strdup(xml);
    sd_bus_message_unref(reply);
    assert_non_null(copy);
    return copy;
}

static void check(sd_bus *client, const char *path, const char *interface)
{
    _cleanup_(freep) char *live = introspect(client, path);
    _cleanup_(freep) char *shipped = NULL;
    char file[256];
    size_t size = 0;

    (void)snprintf(file, sizeof file, "dbus/%s.xml", interface);
    assert_int_equal(file_read(file, 1u << 20, &shipped, &size, NULL), 0);
    _cleanup_(members_done) struct members want = parse(shipped, interface);
    _cleanup_(members_done) struct members have = parse(live, interface);
    assert_true(want.count > 5);
    for (size_t i = 0; i < want.count || i < have.count; i++) {
        const char *a = i < want.count ? want.items[i] : "(nothing)";
        const char *b = i < have.count ? have.items[i] : "(nothing)";
        if (strcmp(a, b) != 0)
            fail_msg("%s: shipped \"%s\", live \"%s\"", interface, a, b);
    }
}

static void test_introspection(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "");
    check(s->client, TESTBUS_PATH, TESTBUS_MANAGER);
    check(s->client, job, TESTBUS_JOB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_introspection, testbus_setup, testbus_teardown),
    };

    return cmocka_run_group_tests_name("contract", tests, NULL, NULL);
}
