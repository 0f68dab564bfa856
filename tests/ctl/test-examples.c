/* The client examples against the daemon with the fake worker, and the shells' completions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/picture.h"
#include "tests/support/build.h"
#include "tests/support/service.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define PYTHON "/usr/bin/python3" /* the one that Debian's packages are for */

static int setup(void **state)
{
    static struct service service;
    char path[4096];

    *state = &service;
    build_path("diffusectl", path, sizeof path);
    (void)setenv("DIFFUSECTL", path, 1);
    build_path("tests/example-generate", path, sizeof path);
    (void)setenv("EXAMPLE", path, 1);
    return service_start(&service, "[defaults]\nsteps = 4\n");
}

static int teardown(void **state)
{
    service_stop(*state);
    return 0;
}

/* A shell command with DIR, DIFFUSECTL and EXAMPLE set; its output, malloc'd. */
static char *output_of(const struct service *s, const char *command, int *ret_status)
{
    char *text = calloc(1, 1 << 16);

    assert_non_null(text);
    (void)setenv("DIR", s->directory, 1);
    FILE *from = popen(command, "r");
    assert_non_null(from);
    (void)!fread(text, 1, (1 << 16) - 1, from);
    int status = pclose(from);
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return text;
}

static void skip_without(const char *test, const char *what)
{
    if (system(test) != 0) {
        print_message("%s is not installed\n", what);
        skip();
    }
}

static void expect_picture(const struct service *s, const char *command, const char *name)
{
    _cleanup_(freep) char *data = NULL;
    _cleanup_(picture_done) struct picture picture = {0};
    char path[256];
    size_t size;
    int status;

    char *text = output_of(s, command, &status);
    if (status != 0 || !strstr(text, "step 21 of 21\n")) /* 20 steps of PNDM are 21 calls */
        fail_msg("%s: status %d\n%s", command, status, text);
    free(text);
    (void)snprintf(path, sizeof path, "%s/%s", s->directory, name);
    assert_int_equal(file_read(path, 1 << 24, &data, &size, NULL), 0);
    assert_int_equal(picture_decode(name, data, size, &picture, NULL), 0);
    assert_int_equal(picture.width, 64);
    assert_int_equal(picture.height, 64);
}

static void expect_refusal(const struct service *s, const char *command, const char *words)
{
    int status;
    char *text = output_of(s, command, &status);

    if (status != 1 || !strstr(text, words))
        fail_msg("%s: status %d, want '%s'\n%s", command, status, words, text);
    free(text);
}

static void test_c(void **state)
{
    expect_picture(*state, "$EXAMPLE fox $DIR/c.png 2>&1", "c.png");
    expect_refusal(*state, "$EXAMPLE fox 2>&1", "generate PROMPT FILE");
    expect_refusal(*state, "$EXAMPLE \"$(head -c 20000 /dev/zero | tr '\\0' x)\" $DIR/n.png 2>&1",
                   "16384");
}

static void test_python(void **state)
{
    skip_without(PYTHON " -c 'import dbus_next' 2>/dev/null", "python3-dbus-next");
    expect_picture(*state, PYTHON " dbus/examples/generate.py fox $DIR/p.png 2>&1", "p.png");
    expect_refusal(*state,
                   PYTHON " dbus/examples/generate.py "
                          "\"$(head -c 20000 /dev/zero | tr '\\0' x)\" $DIR/n.png 2>&1",
                   "PromptTooLong");
}

static void test_watch(void **state)
{
    int status;

    skip_without(PYTHON " -c 'import dbus_next' 2>/dev/null", "python3-dbus-next");
    char *text = output_of(*state,
                           "timeout 20 " PYTHON " dbus/examples/watch.py 3 >$DIR/w 2>&1 & "
                           "for i in $(seq 100); do grep -q watching $DIR/w && break; sleep .1; "
                           "done; $DIFFUSECTL generate fox --no-wait; wait $!; cat $DIR/w",
                           &status);
    if (!strstr(text, " added\n") || !strstr(text, " running\n") || !strstr(text, " done\n"))
        fail_msg("%s", text);
    free(text);
}

/* --- completions ------------------------------------------------------------------------------ */

/* What bash offers for a command line: words, the last of them begun. */
static char *complete(const struct service *s, const char *words)
{
    char command[1024];
    int status;

    (void)snprintf(command, sizeof command,
                   "bash -c '. etc/completions/diffusectl.bash; COMP_WORDS=(\"$DIFFUSECTL\" %s); "
                   "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _diffusectl; "
                   "printf \" %%s\" \"${COMPREPLY[@]}\"; printf \" \"' 2>&1",
                   words);
    char *text = output_of(s, command, &status);
    assert_int_equal(status, 0);
    return text;
}

static void expect_offer(const struct service *s, const char *words, const char *offer)
{
    char want[128];
    char *text = complete(s, words);

    (void)snprintf(want, sizeof want, " %s ", offer);
    if (!strstr(text, want))
        fail_msg("'%s' is not offered for '%s': %s", offer, words, text);
    free(text);
}

/* Every verb of --help, and every flag of every verb. */
static void test_bash_all(void **state)
{
    const struct service *s = *state;
    unsigned verbs = 0, flags = 0;
    int status;

    char *help = output_of(s, "$DIFFUSECTL --help", &status);
    for (const char *line = help; line; line = strchr(line, '\n')) {
        char verb[32], words[64], command[128];
        line += *line == '\n';
        if (strncmp(line, "  ", 2) != 0 || sscanf(line + 2, "%31[a-z]", verb) != 1)
            continue;
        expect_offer(s, "\"\"", verb);
        verbs++;
        (void)snprintf(command, sizeof command, "$DIFFUSECTL %s --help", verb);
        (void)snprintf(words, sizeof words, "%s --", verb);
        char *text = output_of(s, command, &status), *offers = complete(s, words);
        for (const char *p = strstr(text, " --"); p; p = strstr(p + 1, " --")) {
            char flag[48];
            size_t n = strspn(p + 1, "abcdefghijklmnopqrstuvwxyz-");
            if (n < 4 || n > 40)
                continue;
            (void)snprintf(flag, sizeof flag, " %.*s ", (int)n, p + 1);
            if (!strstr(offers, flag))
                fail_msg("%s: %s is not offered: %s", verb, flag, offers);
            flags++;
        }
        free(text);
        free(offers);
    }
    free(help);
    assert_true(verbs >= 18);
    assert_true(flags >= 40);
}

static void test_bash_words(void **state)
{
    const struct service *s = *state;
    int status;

    char *id = output_of(s, "$DIFFUSECTL generate fox --no-wait", &status);
    id[strcspn(id, "\n")] = '\0';
    expect_offer(s, "show \"\"", id);
    expect_offer(s, "cancel \"\"", id);
    expect_offer(s, "list --state \"\"", "cancelled");
    expect_offer(s, "generate --scheduler \"\"", "euler");
    expect_offer(s, "gen", "generate");
    expect_offer(s, "model \"\"", "verify");
    free(id);
}

/* fish tells what it would offer; zsh does so on a terminal only. */
static void test_fish(void **state)
{
    static const struct {
        const char *words, *offer;
    } rows[] = {{"diffusectl can", "cancel\t"},
                {"diffusectl doctor --q", "--quick"},
                {"diffusectl model ver", "verify"},
                {"diffusectl list --state que", "queued"}};
    char command[512];
    int status;

    skip_without("command -v fish >/dev/null", "fish");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        (void)snprintf(command, sizeof command,
                       "PATH=${DIFFUSECTL%%/*}:$PATH HOME=$DIR fish -c 'source "
                       "etc/completions/diffusectl.fish; complete -C\"%s\"' 2>&1",
                       rows[i].words);
        char *text = output_of(*state, command, &status);
        if (status != 0 || !strstr(text, rows[i].offer))
            fail_msg("%s: %s", rows[i].words, text);
        free(text);
    }
}

static void test_other_shells(void **state)
{
    static const struct {
        const char *shell, *command;
    } rows[] = {{"zsh", "zsh -n etc/completions/_diffusectl 2>&1"},
                {"fish", "fish --no-execute etc/completions/diffusectl.fish 2>&1"}};
    char line[128];
    int status;
    bool some = false;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        (void)snprintf(line, sizeof line, "command -v %s >/dev/null", rows[i].shell);
        if (system(line) != 0) {
            print_message("%s is not installed\n", rows[i].shell);
            continue;
        }
        char *text = output_of(*state, rows[i].command, &status);
        if (status != 0 || *text)
            fail_msg("%s", text);
        free(text);
        some = true;
    }
    if (!some)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_c),          cmocka_unit_test(test_python),
        cmocka_unit_test(test_watch),      cmocka_unit_test(test_bash_all),
        cmocka_unit_test(test_bash_words), cmocka_unit_test(test_other_shells),
        cmocka_unit_test(test_fish),
    };

    return cmocka_run_group_tests_name("examples", tests, setup, teardown);
}
