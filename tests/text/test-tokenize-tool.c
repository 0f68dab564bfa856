/* The program tokenize: a line in, a line out; the first bad line ends it by number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "vk/base/cleanup.h"
#include "vk/base/file.h"

static char program[4096]; /* beside this test's own folder: …/tests/tokenize */
static char folder[] = "/tmp/test-tokenize-XXXXXX";

/* Runs the program on `input`; returns the exit status, lines counted in its output, its stderr. */
static int run(const char *input, size_t size, size_t *ret_lines, char ret_errors[static 512])
{
    char out[64], err[64], in[64];

    snprintf(in, sizeof in, "%s/in", folder);
    snprintf(out, sizeof out, "%s/out", folder);
    snprintf(err, sizeof err, "%s/err", folder);
    assert_int_equal(file_write_atomic(in, input, size, NULL), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (freopen(in, "r", stdin) && freopen(out, "w", stdout) && freopen(err, "w", stderr))
            execl(program, program, folder, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    _cleanup_(freep) char *text = NULL, *errors = NULL;
    size_t n;
    assert_int_equal(file_read(out, 1 << 20, &text, &n, NULL), 0);
    *ret_lines = 0;
    for (size_t i = 0; i < n; i++)
        *ret_lines += text[i] == '\n';
    assert_int_equal(file_read(err, 1 << 20, &errors, &n, NULL), 0);
    snprintf(ret_errors, 512, "%s", errors);
    (void)unlink(in), (void)unlink(out), (void)unlink(err); /* rewritten by the next run */
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_lines(void **state)
{
    static const struct {
        const char *input;
        int status;
        size_t lines;
        const char *says;
    } rows[] = {
        {"", 0, 0, ""},
        {"\"a fox\"\n", 0, 1, ""},
        {"\"a\"\n\"b\"", 0, 2, ""},
        {"\"\"\n\"\\u0000\"\n", 0, 2, ""},
        {"  \"a\"  \r\n", 0, 1, ""},
        {"\"a\"\n\n\"b\"\n", 1, 1, "line 2: no JSON string"},
        {"\"a\"\n\"b\"\n[1]\n", 1, 2, "line 3: no JSON string"},
        {"17\n", 1, 0, "line 1: no JSON string"},
        {"\"a\" \"b\"\n", 1, 0, "line 1: no JSON string"},
        {"\"\\ud800\"\n", 1, 0, "line 1: no JSON string"},
        {"\"\xff\"\n", 1, 0, "line 1: no JSON string"},
        {"'a'\n", 1, 0, "line 1: no JSON string"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char errors[512];
        size_t lines;
        int status = run(rows[i].input, strlen(rows[i].input), &lines, errors);
        if (status != rows[i].status || lines != rows[i].lines || !strstr(errors, rows[i].says))
            fail_msg("row %zu: status %d, %zu lines, \"%s\"", i, status, lines, errors);
    }
}

static void test_a_line_of_a_megabyte(void **state)
{
    enum { SIZE = 1 << 20 };
    char *line = malloc(SIZE);
    char errors[512];
    size_t lines;

    (void)state;
    memset(line, 'a', SIZE);
    line[0] = line[SIZE - 2] = '"';
    line[SIZE - 1] = '\n';
    assert_int_equal(run(line, SIZE, &lines, errors), 0);
    assert_int_equal(lines, 1);
    free(line);
}

static int make_folder(void **state)
{
    char link[64], target[4096];

    (void)state;
    if (!mkdtemp(folder) || !getcwd(target, sizeof target - 64))
        return -1;
    strcat(target, "/tests/golden/tokenizer");
    snprintf(link, sizeof link, "%s/tokenizer", folder);
    return symlink(target, link);
}

static int remove_folder(void **state)
{
    char link[64];

    (void)state;
    snprintf(link, sizeof link, "%s/tokenizer", folder);
    return unlink(link) || rmdir(folder);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_a_line_of_a_megabyte),
    };
    const char *slash = strrchr(argv[0], '/');

    (void)argc;
    snprintf(program, sizeof program, "%.*s/../tokenize", slash ? (int)(slash - argv[0]) : 1,
             slash ? argv[0] : ".");
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
