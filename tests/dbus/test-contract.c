/* The shipped XML is the contract: what the daemon says of itself must be the same, member by
 * member, in both directions; and so must the table of options be request.def's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/testbus.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/pipeline/request.h"

/* One line a fact: "method Submit arg prompt s in". */
struct facts ARRAY(char *);

/* Value of an attribute of the tag at `tag`, "" when it has none. Our XML and sd-bus' are plain:
 * double quotes, no entities in values. */
static void attribute(const char *tag, const char *name, char *ret_value, size_t size)
{
    const char *end = strchr(tag, '>');
    char key[64];

    ret_value[0] = '\0';
    (void)snprintf(key, sizeof key, " %s=\"", name);
    const char *at = strstr(tag, key);
    if (!at || at > end)
        return;
    at += strlen(key);
    (void)snprintf(ret_value, size, "%.*s", (int)strcspn(at, "\""), at);
}

static void add_fact(struct facts *facts, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add_fact(struct facts *facts, const char *format, ...)
{
    char **slot = array_push(facts);
    va_list args;

    assert_non_null(slot);
    va_start(args, format);
    assert_true(vasprintf(slot, format, args) >= 0);
    va_end(args);
}

static void add_member(struct facts *facts, const char *kind, const char *tag, char *member,
                       size_t size)
{
    char type[64], access[32], name[64];

    attribute(tag, "name", name, sizeof name);
    attribute(tag, "type", type, sizeof type);
    attribute(tag, "access", access, sizeof access);
    (void)snprintf(member, size, "%s %s", kind, name);
    add_fact(facts, "%s %s %s", member, type, access);
}

static void add_part(struct facts *facts, const char *kind, const char *tag, const char *member)
{
    char name[96], type[64], direction[16];

    if (strcmp(kind, "annotation") == 0) {
        attribute(tag, "name", name, sizeof name);
        attribute(tag, "value", type, sizeof type);
        add_fact(facts, "%s annotation %s %s", member, name, type);
        return;
    }
    attribute(tag, "name", name, sizeof name);
    attribute(tag, "type", type, sizeof type);
    attribute(tag, "direction", direction, sizeof direction);
    add_fact(facts, "%s arg %s %s %s", member, name, type, direction);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Facts of one interface. Arguments keep their order by a number in front. */
static struct facts parse(const char *xml, const char *interface)
{
    char start[128], kind[32], member[96] = "";
    struct facts facts = {0};

    (void)snprintf(start, sizeof start, "<interface name=\"%s\">", interface);
    const char *p = strstr(xml, start);
    assert_non_null(p);
    const char *end = strstr(p, "</interface>");
    assert_non_null(end);
    for (p += strlen(start); (p = strchr(p, '<')) && p < end; p++) {
        if (strncmp(p, "<!--", 4) == 0) {
            p = strstr(p, "-->");
            continue;
        }
        if (sscanf(p, "<%31[a-z]", kind) != 1)
            continue;
        if (strcmp(kind, "arg") == 0 || strcmp(kind, "annotation") == 0)
            add_part(&facts, kind, p, member);
        else
            add_member(&facts, kind, p, member, sizeof member);
    }
    return facts;
}

static void facts_done(struct facts *facts)
{
    for (size_t i = 0; i < facts->count; i++)
        free(facts->items[i]);
    array_done(facts);
}

/* Arguments are compared in their order within a member: each gets its number, then all are
 * sorted. */
static void number_and_sort(struct facts *facts)
{
    for (size_t i = 0; i < facts->count; i++) {
        char *arg = strstr(facts->items[i], " arg ");
        if (!arg)
            continue;
        size_t n = (size_t)(arg - facts->items[i]), before = 0;
        for (size_t j = i; j-- > 0 && strncmp(facts->items[j], facts->items[i], n) == 0;)
            before += strstr(facts->items[j], " arg") != NULL;
        char *numbered = NULL;
        assert_true(
            asprintf(&numbered, "%.*s arg%zu%s", (int)n, facts->items[i], before, arg + 4) >= 0);
        free(facts->items[i]);
        facts->items[i] = numbered;
    }
    qsort(facts->items, facts->count, sizeof *facts->items, compare);
}

static unsigned report_missing(const struct facts *have, const struct facts *want, const char *what)
{
    unsigned missing = 0;

    for (size_t i = 0; i < want->count; i++) {
        if (bsearch(&want->items[i], have->items, have->count, sizeof *have->items, compare))
            continue;
        print_error("%s: %s\n", what, want->items[i]);
        missing++;
    }
    return missing;
}

static void check_interface(struct testbus *s, const char *path, const char *interface)
{
    _cleanup_(freep) char *shipped = NULL;
    sd_bus_message *reply = NULL;
    const char *live;
    char file[128];
    size_t size;

    (void)snprintf(file, sizeof file, "dbus/%s.xml", interface);
    assert_int_equal(file_read(file, 1 << 20, &shipped, &size, NULL), 0);
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, path,
                                   "org.freedesktop.DBus.Introspectable", "Introspect", NULL,
                                   &reply, "") >= 0);
    assert_true(sd_bus_message_read(reply, "s", &live) >= 0);
    struct facts want = parse(shipped, interface), have = parse(live, interface);
    number_and_sort(&want);
    number_and_sort(&have);
    assert_true(want.count > 10);
    unsigned wrong = report_missing(&have, &want, "shipped, but not live");
    wrong += report_missing(&want, &have, "live, but not shipped");
    assert_int_equal(want.count, have.count);
    assert_int_equal(wrong, 0);
    facts_done(&want);
    facts_done(&have);
    sd_bus_message_unref(reply);
}

static void test_introspection(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "");
    check_interface(s, TESTBUS_PATH, TESTBUS_MANAGER);
    check_interface(s, job, TESTBUS_JOB);
}

/* What everybody sees of a job: three properties, by GetManagedObjects and by GetAll. */
static unsigned count_properties(sd_bus_message *reply)
{
    unsigned n = 0;

    assert_true(sd_bus_message_enter_container(reply, 'a', "{sv}") >= 0);
    while (sd_bus_message_enter_container(reply, 'e', "sv") > 0) {
        const char *name;
        assert_true(sd_bus_message_read(reply, "s", &name) >= 0);
        assert_true(strcmp(name, "Id") == 0 || strcmp(name, "State") == 0 ||
                    strcmp(name, "OwnerUid") == 0);
        assert_true(sd_bus_message_skip(reply, "v") >= 0);
        assert_true(sd_bus_message_exit_container(reply) >= 0);
        n++;
    }
    assert_true(sd_bus_message_exit_container(reply) >= 0);
    return n;
}

static void test_public_properties(void **state)
{
    struct testbus *s = *state;
    sd_bus_message *reply = NULL;
    char job[TESTBUS_PATH_SIZE];
    const char *path, *interface;
    unsigned objects = 0, n = 0;

    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "");
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, job, "org.freedesktop.DBus.Properties",
                                   "GetAll", NULL, &reply, "s", TESTBUS_JOB) >= 0);
    assert_int_equal(count_properties(reply), 3);
    reply = sd_bus_message_unref(reply);
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, TESTBUS_PATH,
                                   "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", NULL,
                                   &reply, "") >= 0);
    assert_true(sd_bus_message_enter_container(reply, 'a', "{oa{sa{sv}}}") >= 0);
    while (sd_bus_message_enter_container(reply, 'e', "oa{sa{sv}}") > 0) {
        assert_true(sd_bus_message_read(reply, "o", &path) >= 0);
        assert_string_equal(path, job);
        assert_true(sd_bus_message_enter_container(reply, 'a', "{sa{sv}}") >= 0);
        while (sd_bus_message_enter_container(reply, 'e', "sa{sv}") > 0) {
            assert_true(sd_bus_message_read(reply, "s", &interface) >= 0);
            n += count_properties(reply);
            assert_true(sd_bus_message_exit_container(reply) >= 0);
        }
        assert_true(sd_bus_message_exit_container(reply) >= 0);
        assert_true(sd_bus_message_exit_container(reply) >= 0);
        objects++;
    }
    assert_int_equal(objects, 1);
    assert_int_equal(n, 3);
    sd_bus_message_unref(reply);
}

static void check_option(sd_bus_message *reply, const struct request_row *row)
{
    const char *name, *type, *fallback, *min, *max, *unit, *help, *word;
    char words[256] = "";

    assert_true(sd_bus_message_enter_container(reply, 'r', "ssssssass") > 0);
    assert_true(sd_bus_message_read(reply, "ssssss", &name, &type, &fallback, &min, &max, &unit) >=
                0);
    assert_true(sd_bus_message_enter_container(reply, 'a', "s") >= 0);
    while (sd_bus_message_read(reply, "s", &word) > 0) {
        size_t n = strlen(words);
        (void)snprintf(words + n, sizeof words - n, "%s%s", n ? " " : "", word);
    }
    assert_true(sd_bus_message_exit_container(reply) >= 0);
    assert_true(sd_bus_message_read(reply, "s", &help) >= 0);
    assert_true(sd_bus_message_exit_container(reply) >= 0);
    assert_string_equal(name, row->name);
    assert_string_equal(type, request_row_signature(row));
    assert_string_equal(fallback, row == &request_rows[REQUEST_steps] ? "4" : row->default_text);
    assert_string_equal(unit, row->unit);
    assert_string_equal(words, row->values);
    assert_string_equal(help, row->help);
    if (row == &request_rows[REQUEST_seed])
        assert_string_equal(max, "9223372036854775807");
    if (row == &request_rows[REQUEST_steps])
        assert_true(strcmp(min, "1") == 0 && strcmp(max, "500") == 0);
}

static void test_options(void **state)
{
    struct testbus *s = *state;
    sd_bus_message *reply = NULL;

    testbus_start_daemon(s, "ready");
    assert_true(sd_bus_get_property(s->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                    "Options", NULL, &reply, "a(ssssssass)") >= 0);
    assert_true(sd_bus_message_enter_container(reply, 'a', "(ssssssass)") >= 0);
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++)
        check_option(reply, &request_rows[i]);
    assert_true(sd_bus_message_at_end(reply, 0) > 0);
    sd_bus_message_unref(reply);
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_introspection),
        BUS_TEST(test_public_properties),
        BUS_TEST(test_options),
    };

    return cmocka_run_group_tests_name("contract", tests, NULL, NULL);
}
