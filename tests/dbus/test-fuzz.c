/* fuzz: an introspecting fuzzer as an ordinary user who may submit: members found on the live
 * objects, right and wrong signatures, values from ordinary to absurd, descriptors of every kind,
 * clients that leave without waiting. The daemon must stay up, answer within a second, and hold no
 * more descriptors and memory in the end than before. Needs root (to become that user).
 *
 * CALLS=n calls (3000), SEED=n repeats a run; both are printed. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/busxml.h"
#include "tests/support/proc.h"
#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"
#include "vk/pipeline/request.h"

#define USER         5 /* games: in the access group of this test */
#define GROUP        60
#define ROUND        500  /* calls between two looks at the daemon */
#define WARM_UP      1000 /* calls before its memory is measured */
#define SLOW_MSEC    1000
#define PATIENCE_SEC 20
#define KEEP_JOBS    100
#define LONG_TEXT    70000
#define HUGE_TEXT    1000000

/* libsystemd reads a message in pieces and asks realloc() for its room at each, which costs nothing
 * but under the sanitizer: there it copies all that was read, seconds for a message of 16 MB. */
#if defined __SANITIZE_ADDRESS__
#define GIANTS_COUNT false
#else
#define GIANTS_COUNT true
#endif

struct fuzz {
    struct testbus *bus;
    sd_bus *client;
    struct busxml xml;
    uint64_t random;
    uint64_t last_job; /* highest id seen */
    unsigned calls, errors, successes, dropped, slow, depth;
    long slowest_msec;
    bool is_giant; /* the message under way may have megabytes */
    size_t budget; /* bytes of text the message under way may still have */
    char *text;    /* HUGE_TEXT + 1 bytes */
};

/* --- chance ----------------------------------------------------------------------------------- */

/* xorshift64*: the same calls for the same seed. */
static uint64_t next(struct fuzz *f)
{
    f->random ^= f->random >> 12;
    f->random ^= f->random << 25;
    f->random ^= f->random >> 27;
    return f->random * UINT64_C(0x2545f4914f6cdd1d);
}

static unsigned below(struct fuzz *f, unsigned n)
{
    return (unsigned)((next(f) >> 16) % n);
}

static bool chance(struct fuzz *f, unsigned percent)
{
    return below(f, 100) < percent;
}

/* --- values ----------------------------------------------------------------------------------- */

static const char *random_text(struct fuzz *f)
{
    static const char *const odd[] = {
        "",
        "x",
        "a fox",
        "%s%n%p",
        "../../etc/passwd",
        "/dev/zero",
        "\n\r\t\x7f",
        "rgb",
        "png",
        "queued",
        "done",
        "\xe2\x80\xae\xf0\x9f\xa6\x8a",
        "pndm",
        "18446744073709551616",
        "-1",
        TESTBUS_MANAGER,
        TESTBUS_JOB,
        "State",
        "Error",
        "LogLevel",
        "org.freedesktop.LogControl1",
    };
    unsigned kind = below(f, 100);

    if (kind < 60)
        return odd[below(f, ARRAY_SIZE(odd))];
    size_t length = kind < 90 ? below(f, 300) : kind < 98 ? LONG_TEXT : HUGE_TEXT;
    if (length > f->budget)
        length = f->budget;
    f->budget -= length;
    return f->text + HUGE_TEXT - length; /* all the same letter */
}

static const char *random_key(struct fuzz *f)
{
    static const char *const others[] = {"format", "state", "owner", "limit",
                                         "image",  "mask",  "STEPS", "prompts"};

    if (chance(f, 70))
        return request_rows[below(f, REQUEST_ROW_COUNT)].name;
    return chance(f, 70) ? others[below(f, ARRAY_SIZE(others))] : random_text(f);
}

static void random_path(struct fuzz *f, char *path, size_t size)
{
    static const char *const known[] = {"/", TESTBUS_PATH, TESTBUS_PATH "/job",
                                        "/org/freedesktop/LogControl1", "/org/diffused"};
    unsigned kind = below(f, 100);

    if (kind < 50)
        (void)snprintf(path, size, TESTBUS_PATH "/job/%" PRIu64,
                       f->last_job ? 1 + next(f) % f->last_job : 1);
    else if (kind < 75)
        (void)snprintf(path, size, "%s", known[below(f, ARRAY_SIZE(known))]);
    else if (kind < 95)
        (void)snprintf(path, size, TESTBUS_PATH "/job/%s%" PRIu64, chance(f, 50) ? "0" : "",
                       next(f));
    else
        (void)snprintf(path, size, TESTBUS_PATH "/%.*s", (int)below(f, LONG_TEXT), f->text);
}

static uint64_t random_number(struct fuzz *f)
{
    static const uint64_t edges[] = {
        0, 1, 2, 8, 64, 100, 500, 2048, UINT32_MAX, INT64_MAX, UINT64_MAX, (uint64_t)1 << 31};

    if (chance(f, 40) && f->last_job)
        return 1 + next(f) % f->last_job;
    return chance(f, 80) ? edges[below(f, ARRAY_SIZE(edges))] : next(f);
}

/* What a client might hand over: none of it is asked for. */
static int random_descriptor(struct fuzz *f)
{
    int pair[2] = {-1, -1};

    switch (below(f, 5)) {
    case 0:
        (void)!pipe2(pair, O_CLOEXEC);
        break;
    case 1:
        (void)socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
        break;
    case 2:
        return memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    case 3:
        return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    default:
        return open("/dev/zero", O_RDONLY | O_CLOEXEC);
    }
    (void)close(pair[1]);
    return pair[0];
}

/* --- messages --------------------------------------------------------------------------------- */

static int append_value(struct fuzz *f, sd_bus_message *m, const char **type);

static int append_basic(struct fuzz *f, sd_bus_message *m, char type)
{
    char path[LONG_TEXT + 64];
    uint64_t number = random_number(f);
    double real = (double)(int64_t)number / (chance(f, 50) ? 1.0 : 3e9);
    int boolean = (int)(number & 1), r;

    switch (type) {
    case 's':
        return sd_bus_message_append_basic(m, 's', random_text(f));
    case 'o':
        random_path(f, path, sizeof path);
        return sd_bus_message_append_basic(m, 'o', path);
    case 'g':
        return sd_bus_message_append_basic(m, 'g', "a{sv}");
    case 'b':
        return sd_bus_message_append_basic(m, 'b', &boolean);
    case 'd':
        return sd_bus_message_append_basic(m, 'd', &real);
    case 'h': {
        _cleanup_(closep) int fd = random_descriptor(f);
        r = sd_bus_message_append_basic(m, 'h', &fd);
        return r;
    }
    default:
        return sd_bus_message_append_basic(m, type, &number); /* little endian: the low bytes */
    }
}

/* One complete type out of a small set; nested ones are rare. */
static const char *random_type(struct fuzz *f)
{
    static const char *const types[] = {"s",     "u",  "t",     "d",  "b",   "h",       "i", "y",
                                        "x",     "n",  "o",     "g",  "as",  "ay",      "v", "ah",
                                        "a{sv}", "au", "(sus)", "av", "aas", "a{s(uv)}"};

    return types[below(f, chance(f, 80) ? 8 : ARRAY_SIZE(types))];
}

static int append_variant(struct fuzz *f, sd_bus_message *m)
{
    const char *type = f->depth > 0 && f->depth < 60 && chance(f, 90) ? "v" : random_type(f);

    f->depth++;
    int r = sd_bus_message_open_container(m, 'v', type);
    if (r >= 0)
        r = append_value(f, m, &type);
    f->depth--;
    return r < 0 ? r : sd_bus_message_close_container(m);
}

/* The end of the complete type at `p`. */
static const char *skip_type(const char *p)
{
    int open = 0;

    for (; *p == 'a'; p++)
        continue;
    do {
        open += (*p == '(' || *p == '{') - (*p == ')' || *p == '}');
        p++;
    } while (open > 0);
    return p;
}

static int append_inside(struct fuzz *f, sd_bus_message *m, const char *from, const char *to)
{
    int r = 0;

    while (r >= 0 && from < to)
        r = append_value(f, m, &from);
    return r;
}

static int append_dictionary_entry(struct fuzz *f, sd_bus_message *m, const char *inside,
                                   const char *end)
{
    const char *value = inside + 1;
    char contents[64];

    (void)snprintf(contents, sizeof contents, "%.*s", (int)(end - inside), inside);
    int r = sd_bus_message_open_container(m, 'e', contents);
    if (r >= 0)
        r = *inside == 's' ? sd_bus_message_append_basic(m, 's', random_key(f))
                           : append_basic(f, m, *inside);
    if (r >= 0)
        r = append_inside(f, m, value, end);
    return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_array(struct fuzz *f, sd_bus_message *m, const char *inside, const char *end)
{
    unsigned count = chance(f, 95) ? below(f, 6) : below(f, 2000);
    char contents[64];
    int r;

    if (*inside == 'y' && chance(f, 20))
        return sd_bus_message_append_array(m, 'y', f->text, f->budget % HUGE_TEXT);
    if (strchr(inside, 'h') && count > 5) /* more than a message may carry in all */
        count = 5;
    (void)snprintf(contents, sizeof contents, "%.*s", (int)(end - inside), inside);
    r = sd_bus_message_open_container(m, 'a', contents);
    for (unsigned i = 0; r >= 0 && i < count; i++)
        r = *inside == '{' ? append_dictionary_entry(f, m, inside + 1, end - 1)
                           : append_inside(f, m, inside, end);
    return r < 0 ? r : sd_bus_message_close_container(m);
}

/* Appends one complete type and moves on behind it. */
static int append_value(struct fuzz *f, sd_bus_message *m, const char **type)
{
    const char *start = *type, *end = skip_type(start);
    char contents[64];
    int r;

    *type = end;
    switch (*start) {
    case 'a':
        return append_array(f, m, start + 1, end);
    case 'v':
        return append_variant(f, m);
    case '(':
        (void)snprintf(contents, sizeof contents, "%.*s", (int)(end - start - 2), start + 1);
        r = sd_bus_message_open_container(m, 'r', contents);
        if (r >= 0)
            r = append_inside(f, m, start + 1, end - 1);
        return r < 0 ? r : sd_bus_message_close_container(m);
    default:
        return append_basic(f, m, *start);
    }
}

static int append_wrong_arguments(struct fuzz *f, sd_bus_message *m)
{
    int r = 0;

    for (unsigned n = below(f, 4); r >= 0 && n > 0; n--) {
        const char *type = random_type(f);
        r = append_value(f, m, &type);
    }
    return r;
}

/* A signal to the daemon alone. */
static int new_signal(struct fuzz *f, const char *path, const char *name, sd_bus_message **ret)
{
    int r = sd_bus_message_new_signal(f->client, ret, path, "org.freedesktop.DBus", name);

    return r < 0 ? r : sd_bus_message_set_destination(*ret, TESTBUS_NAME);
}

/* NULL where sd-bus or the bus do not take what came out; that is no call. */
static sd_bus_message *make_call(struct fuzz *f)
{
    const struct busxml_member *member = &f->xml.items[below(f, (unsigned)f->xml.count)];
    const char *in = member->in, *name = chance(f, 97) ? member->name : "NoSuchMethod";
    const char *interface = chance(f, 95) ? member->interface : chance(f, 50) ? NULL : "a.b";
    char path[LONG_TEXT + 64];
    sd_bus_message *m = NULL;
    int r;

    f->budget = chance(f, 95) ? LONG_TEXT : chance(f, 90) ? HUGE_TEXT : 16 * HUGE_TEXT;
    f->is_giant = f->budget > HUGE_TEXT;
    random_path(f, path, sizeof path);
    if (strcmp(member->interface, TESTBUS_MANAGER) == 0 && chance(f, 90))
        (void)snprintf(path, sizeof path, TESTBUS_PATH);
    if (chance(f, 2))
        r = new_signal(f, path, name, &m);
    else
        r = sd_bus_message_new_method_call(f->client, &m, TESTBUS_NAME, path, interface, name);
    if (r >= 0 && chance(f, 85))
        r = append_inside(f, m, in, in + strlen(in));
    else if (r >= 0)
        r = append_wrong_arguments(f, m);
    if (r < 0)
        m = sd_bus_message_unref(m);
    return m;
}

/* --- calls ------------------------------------------------------------------------------------ */

static void reconnect(struct fuzz *f)
{
    sd_bus_close_unref(f->client); /* what it has not sent or read is lost: as with a crash */
    f->client = testbus_connect_as(f->bus, USER, GROUP);
    f->dropped++;
}

static void note_job(struct fuzz *f, sd_bus_message *reply)
{
    const char *path;

    if (sd_bus_message_has_signature(reply, "o") && sd_bus_message_read(reply, "o", &path) > 0 &&
        strncmp(path, TESTBUS_PATH "/job/", strlen(TESTBUS_PATH "/job/")) == 0)
        f->last_job = strtoull(path + strlen(TESTBUS_PATH "/job/"), NULL, 10);
}

/* Answered when the disk has it, and that is not ours alone: slow ones are told of, not counted. */
static bool waits_for_disk(const char *member)
{
    static const char *const members[] = {"Submit", "Cancel", "Delete"};

    for (size_t i = 0; member && i < ARRAY_SIZE(members); i++)
        if (strcmp(member, members[i]) == 0)
            return true;
    return false;
}

static void note_time(struct fuzz *f, const char *member, long msec)
{
    if (msec > f->slowest_msec)
        f->slowest_msec = msec;
    if (msec <= SLOW_MSEC)
        return;
    f->slow += !waits_for_disk(member) && (!f->is_giant || GIANTS_COUNT);
    print_message("call %u: %s%s took %ld ms\n", f->calls, member ? member : "(no member)",
                  f->is_giant ? ", giant," : "", msec);
}

/* Waits for the answer; every answer will do, none will not. */
static void call_and_wait(struct fuzz *f, sd_bus_message *m)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *reply = NULL;
    long start = proc_now_msec();

    int r = sd_bus_call(f->client, m, (uint64_t)PATIENCE_SEC * 1000000, &error, &reply);
    note_time(f, sd_bus_message_get_member(m), proc_now_msec() - start);
    f->errors += r < 0;
    f->successes += r >= 0;
    if (r >= 0)
        note_job(f, reply);
    else if (sd_bus_error_has_name(&error, SD_BUS_ERROR_NO_REPLY) ||
             sd_bus_error_has_name(&error, SD_BUS_ERROR_SERVICE_UNKNOWN) || r == -ETIMEDOUT)
        fail_msg("%s.%s: no answer: %s", sd_bus_message_get_interface(m),
                 sd_bus_message_get_member(m), error.message ? error.message : strerror(-r));
    sd_bus_error_free(&error);
    sd_bus_message_unref(reply);
    if (!sd_bus_is_open(f->client)) /* the bus daemon did not like the message */
        reconnect(f);
}

static void make_one_call(struct fuzz *f)
{
    sd_bus_message *m = make_call(f);

    if (!m)
        return;
    f->calls++;
    bool is_call = sd_bus_message_is_method_call(m, NULL, NULL) > 0;
    if (is_call && chance(f, 80)) {
        call_and_wait(f, m);
    } else {
        uint64_t cookie; /* who takes it gets a reply */
        bool wants_reply = is_call && chance(f, 50);
        (void)sd_bus_send(f->client, m, wants_reply ? &cookie : NULL); /* fails: the next shows */
    }
    sd_bus_message_unref(m);
    if (chance(f, 1))
        reconnect(f);
    while (sd_bus_process(f->client, NULL) > 0)
        continue;
}

/* --- the daemon ------------------------------------------------------------------------------- */

static void look_after(struct fuzz *f)
{
    int status;

    if (waitpid(f->bus->daemon, &status, WNOHANG) != 0) {
        f->bus->daemon = 0;
        fail_msg("after %u calls the daemon ended, status 0x%x", f->calls, (unsigned)status);
    }
}

/* It may go by itself: a Delete under way, or all its pictures fetched. */
static void end_job(sd_bus *client, const char *path)
{
    long start = proc_now_msec();
    bool is_gone = false;

    while (!is_gone) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        (void)sd_bus_call_method(client, TESTBUS_NAME, path, TESTBUS_JOB, "Cancel", NULL, NULL, "");
        is_gone = sd_bus_call_method(client, TESTBUS_NAME, path, TESTBUS_JOB, "Delete", &error,
                                     NULL, "") >= 0 ||
                  sd_bus_error_has_name(&error, TESTBUS_ERROR "NotFound");
        if (proc_now_msec() - start > TESTBUS_PATIENCE)
            fail_msg("%s does not go: %s", path, error.message);
        sd_bus_error_free(&error);
        if (!is_gone)
            testbus_process(client, 20); /* a running one takes a step more */
    }
}

/* Cancels and deletes what is there, from the oldest on, until `keep` are left. */
static void tidy(struct fuzz *f, unsigned keep)
{
    sd_bus_message *reply = NULL;
    char paths[2000][64];
    unsigned n = 0;

    assert_true(sd_bus_call_method(f->bus->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                   "ListJobs", NULL, &reply, "a{sv}", 0) >= 0);
    assert_true(sd_bus_message_enter_container(reply, 'a', "(tosu)") >= 0);
    for (const char *path, *state;
         n < 2000 && sd_bus_message_read(reply, "(tosu)", NULL, &path, &state, NULL) > 0; n++)
        (void)snprintf(paths[n], sizeof paths[n], "%s", path);
    sd_bus_message_unref(reply);
    for (unsigned i = 0; i + keep < n; i++)
        end_job(f->bus->client, paths[i]);
    while (sd_bus_process(f->bus->client, NULL) > 0)
        continue;
}

static void walk(struct fuzz *f, const char *path)
{
    sd_bus_message *reply = NULL;
    const char *text;

    assert_true(sd_bus_call_method(f->client, TESTBUS_NAME, path,
                                   "org.freedesktop.DBus.Introspectable", "Introspect", NULL,
                                   &reply, "") >= 0);
    assert_true(sd_bus_message_read(reply, "s", &text) >= 0);
    assert_int_equal(busxml_parse(text, &f->xml), 0);
    sd_bus_message_unref(reply);
}

/* Only methods can be called; properties are reached by those of Properties. */
static void keep_methods(struct busxml *xml)
{
    size_t kept = 0;

    for (size_t i = 0; i < xml->count; i++)
        if (xml->items[i].kind == BUSXML_METHOD)
            xml->items[kept++] = xml->items[i];
    xml->count = kept;
}

static void start(struct fuzz *f)
{
    const char *seed = getenv("SEED");
    char job[TESTBUS_PATH_SIZE];

    f->random = seed ? strtoull(seed, NULL, 10) : 1;
    print_message("SEED=%" PRIu64 "\n", f->random);
    f->random = f->random * 2 + 1; /* never 0 */
    f->text = malloc(HUGE_TEXT + 1);
    assert_non_null(f->text);
    memset(f->text, 'x', HUGE_TEXT);
    f->text[HUGE_TEXT] = '\0';
    testbus_configure(f->bus, "[access]\ngroup = games\n[limits]\nqueue = 20\n"
                              "calls_per_second = 0\n");
    (void)setenv("ASAN_OPTIONS", "quarantine_size_mb=8:detect_leaks=1", 1);
    testbus_start_daemon(f->bus, "ready");
    f->client = testbus_connect_as(f->bus, USER, GROUP);
    testbus_submit(f->client, "x", job, "a{sv}", 1, "steps", "u", 1);
    f->last_job = 1;
    walk(f, TESTBUS_PATH);
    walk(f, job);
    walk(f, "/org/freedesktop/LogControl1");
    keep_methods(&f->xml);
    assert_true(f->xml.count > 15);
}

static void run(struct fuzz *f, unsigned calls)
{
    for (unsigned end = f->calls + calls; f->calls < end;) {
        for (unsigned i = 0; i < ROUND && f->calls < end; i++)
            make_one_call(f);
        look_after(f);
        tidy(f, KEEP_JOBS);
    }
}

/* Nothing is under way any more: no client, no job. */
static void settle(struct fuzz *f)
{
    reconnect(f);
    tidy(f, 0);
    testbus_wait_state(f->bus->client, TESTBUS_PATH, "ready");
    testbus_process(f->bus->client, 2500); /* lent pictures are looked after every second */
}

static void test_fuzz(void **state)
{
    struct fuzz f = {.bus = *state};
    const char *calls = getenv("CALLS");
    unsigned wanted = calls ? (unsigned)strtoul(calls, NULL, 10) : 3000;

    if (geteuid() != 0 || !getpwuid(USER)) {
        print_message("becoming user %d needs root and that user\n", USER);
        skip();
    }
    start(&f);
    run(&f, WARM_UP);
    settle(&f);
    int descriptors = proc_count_descriptors(f.bus->daemon);
    long before = proc_rss_kib(f.bus->daemon);
    run(&f, wanted > WARM_UP ? wanted - WARM_UP : 0);
    settle(&f);
    long after = proc_rss_kib(f.bus->daemon);
    print_message("%u calls: %u answered, %u refused, slowest %ld ms, %u over %d ms; "
                  "%u connections; RSS %ld -> %ld KiB; %d descriptors\n",
                  f.calls, f.successes, f.errors, f.slowest_msec, f.slow, SLOW_MSEC, f.dropped,
                  before, after, descriptors);
    sd_bus_flush_close_unref(f.client);
    array_done(&f.xml);
    free(f.text);
    assert_true(f.successes > wanted / 50);
    assert_int_equal(proc_count_descriptors(f.bus->daemon), descriptors);
    assert_true(after < before + 16 * 1024);
    assert_int_equal(f.slow, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fuzz, testbus_setup, testbus_teardown),
    };

    proc_stand_out();
    return cmocka_run_group_tests_name("fuzz", tests, NULL, NULL);
}
