/* config over files: drop-ins in systemd's order, paths, the word list, and what was set where. */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/config-internal.h"
#include "tests/support/folder.h"
#include "vk/base/file.h"

/* Writes DIR/name with its folders. */
static void put(const char *directory, const char *name, const char *text)
{
    char path[PATH_MAX], folder[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(file_make_directories(folder), 0);
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), 0);
}

static void mask(const char *directory, const char *name)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_int_equal(symlink("/dev/null", path), 0);
}

static int read_main(const char *directory, struct config *c, struct fault *f)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/x.conf", directory);
    return config_read(path, c, f);
}

static void test_order(void **state)
{
    const char *dir = *state;
    char low[PATH_MAX], middle[PATH_MAX], high[PATH_MAX];
    const char *const directories[] = {low, middle, high, "/no/such/directory"};
    static const char *const want[] = {"/lib/10-a.conf", "/etc/20-b.conf", "/run/30-c.conf",
                                       "/etc/50-e.conf"};
    struct config_files files;
    struct fault f = {0};

    (void)snprintf(low, sizeof low, "%s/lib", dir);
    (void)snprintf(middle, sizeof middle, "%s/run", dir);
    (void)snprintf(high, sizeof high, "%s/etc", dir);
    put(dir, "lib/30-c.conf", "");
    put(dir, "lib/10-a.conf", "");
    put(dir, "lib/20-b.conf", "");
    put(dir, "lib/40-d.conf", "");
    put(dir, "lib/README", "");
    put(dir, "lib/.hidden.conf", "");
    put(dir, "lib/.conf", "");
    put(dir, "run/30-c.conf", "");
    put(dir, "run/20-b.conf", "");
    put(dir, "etc/50-e.conf", "");
    put(dir, "etc/20-b.conf", "");
    mask(dir, "etc/40-d.conf");
    mask(dir, "etc/60-nothing.conf");
    assert_int_equal(config_find_dropins_in(directories, ARRAY_SIZE(directories), &files, &f), 0);
    assert_int_equal(files.count, ARRAY_SIZE(want));
    for (size_t i = 0; i < files.count; i++)
        assert_string_equal(files.paths[i] + strlen(dir), want[i]);
    config_files_done(&files);
}

static void test_too_many(void **state)
{
    const char *dir = *state;
    const char *const directories[] = {dir};
    struct config_files files;
    struct fault f = {0};
    char name[32];

    for (unsigned i = 0; i <= CONFIG_FILES_MAX; i++) {
        (void)snprintf(name, sizeof name, "%u.conf", i);
        put(dir, name, "");
    }
    assert_int_equal(config_find_dropins_in(directories, 1, &files, &f), -EINVAL);
    assert_non_null(strstr(f.text, "more than 64 drop-ins"));
}

static void test_merging(void **state)
{
    const char *dir = *state;
    struct config c;
    struct fault f = {0};

    put(dir, "x.conf", "[limits]\nqueue = 1\npixels = 64\n[preset p]\nsteps = 3\nwidth = 64\n");
    put(dir, "x.conf.d/20.conf", "[limits]\n\nqueue = 3\n[preset p]\nsteps = 5\n");
    put(dir, "x.conf.d/10.conf", "[limits]\nqueue = 2\n[model]\npath = m\n[preset q]\n");
    assert_int_equal(read_main(dir, &c, &f), 0);
    assert_int_equal(c.warning_count, 0);
    assert_int_equal(c.limit_queue, 3);
    assert_int_equal(c.limit_pixels, 64);
    assert_int_equal(c.preset_count, 2);
    assert_int_equal(config_find_preset(&c, "p")->steps, 5);
    assert_int_equal(config_find_preset(&c, "p")->width, 64);
    assert_string_equal(c.model_path + strlen(dir), "/x.conf.d/m"); /* beside the file it is in */
    assert_int_equal(c.file_count, 3);
    for (size_t i = 0; i < config_row_count; i++) {
        if (strcmp(config_rows[i].key, "queue") != 0)
            continue;
        assert_string_equal(c.files[c.row_origins[i].file - 1] + strlen(dir), "/x.conf.d/20.conf");
        assert_int_equal(c.row_origins[i].line, 3);
    }
    config_done(&c);
}

static void test_faults_name_the_dropin(void **state)
{
    const char *dir = *state;
    struct config c;
    struct fault f = {0};

    assert_int_equal(read_main(dir, &c, &f), -ENOENT);
    put(dir, "x.conf", "[device]\nnode = 0 1 2 3\n");
    put(dir, "x.conf.d/10.conf", "[limits]\nqueue = many\n");
    assert_int_equal(read_main(dir, &c, &f), -EINVAL);
    assert_non_null(strstr(f.text, "x.conf.d/10.conf:2: [limits] queue"));
    put(dir, "x.conf.d/10.conf", "\n[device]\nnode = 0 1 2 3 4 5 6 7 8\n");
    assert_int_equal(read_main(dir, &c, &f), -EINVAL);
    assert_non_null(strstr(f.text, "x.conf.d/10.conf:3: [device] node: more than 8"));
    mask(dir, "x.conf.d/00.conf");
    put(dir, "x.conf.d/10.conf", "[zoo]\n");
    assert_int_equal(read_main(dir, &c, &f), 0);
    assert_int_equal(c.warning_count, 1);
    assert_non_null(strstr(c.warnings[0], "x.conf.d/10.conf:1: unknown section [zoo]"));
    config_done(&c);
}

/* Not "absent": the daemon would start with other values than those asked for. */
static void test_dangling_link(void **state)
{
    const char *dir = *state;
    char path[PATH_MAX];
    struct config c;
    struct fault f = {0};

    put(dir, "x.conf", "");
    put(dir, "x.conf.d/10.conf", "");
    (void)snprintf(path, sizeof path, "%s/x.conf.d/20.conf", dir);
    assert_int_equal(symlink("/no/such/file", path), 0);
    assert_int_equal(read_main(dir, &c, &f), -EINVAL);
    assert_non_null(strstr(f.text, "x.conf.d/20.conf: No such file"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(read_main(dir, &c, &f), -EINVAL);
    assert_non_null(strstr(f.text, "x.conf.d/20.conf: not a regular file"));
}

static void test_word_list(void **state)
{
    const char *dir = *state;
    struct config c;
    struct fault f = {0};

    put(dir, "words", "# no\nfox\nred apple\n");
    put(dir, "x.conf", "[access]\nword_list = words\n");
    assert_int_equal(read_main(dir, &c, &f), 0);
    assert_null(config_refused_word(&c, "a cat"));
    assert_null(config_refused_word(&c, NULL));
    const char *place = config_refused_word(&c, "a RED\napple");
    assert_non_null(place);
    assert_string_equal(place + strlen(dir), "/words:3");
    config_done(&c);
    put(dir, "words", "fox\n...\n");
    assert_int_equal(read_main(dir, &c, &f), -EINVAL);
    assert_non_null(strstr(f.text, "x.conf:2: [access] word_list: "));
    assert_non_null(strstr(f.text, "/words:2: holds no letter"));
}

static void test_check(void **state)
{
    const char *dir = *state;
    char path[PATH_MAX], text[1024] = "";
    FILE *to = fmemopen(text, sizeof text, "w");

    assert_non_null(to);
    (void)snprintf(path, sizeof path, "%s/x.conf", dir);
    put(dir, "x.conf", "[zoo]\n");
    assert_int_equal(config_check(path, to), 0);
    put(dir, "x.conf", "[limits]\nqueue = 0\n");
    assert_int_equal(config_check(path, to), -EINVAL);
    (void)fclose(to);
    assert_non_null(strstr(text, "warning: "));
    assert_non_null(strstr(text, "/x.conf:1: unknown section [zoo], ignoring\nerror: "));
    assert_non_null(strstr(text, "/x.conf:2: [limits] queue = \"0\": want a number"));
}

/* In a child with /etc, /run and /usr/lib of its own; the exit status says which check failed. */
static int check_installed(void)
{
    static const char *const roots[] = {"/etc", "/run", "/usr/lib"};
    struct config c;
    struct fault f = {0};

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 77;
    for (size_t i = 0; i < ARRAY_SIZE(roots); i++)
        if (mount("tmpfs", roots[i], "tmpfs", 0, NULL) < 0)
            return 77;
    if (config_read(CONFIG_FILE, &c, &f) != 0 || c.warning_count != 1 || c.limit_queue != 100)
        return 1;
    if (strcmp(c.warnings[0], CONFIG_FILE ": No such file or directory; built-in values stand for "
                                          "it") != 0)
        return 2;
    config_done(&c);
    put("/usr/lib/diffused", "diffused.conf.d/10.conf", "[limits]\nqueue = 1\npixels = 1\n");
    put("/run/diffused", "diffused.conf.d/10.conf", "[limits]\nqueue = 2\n");
    put("/etc/diffused", "diffused.conf.d/05.conf", "[limits]\nqueue = 3\nuser_jobs = 3\n");
    put("/etc/diffused", "diffused.conf", "[limits]\nqueue = 4\nuser_jobs = 4\ncalls_burst = 4\n");
    if (config_read(CONFIG_FILE, &c, &f) != 0 || c.warning_count != 0 || c.file_count != 3)
        return 3;
    if (c.limit_queue != 2 || c.limit_pixels != 0 || c.limit_user_jobs != 3 ||
        c.limit_calls_burst != 4)
        return 4;
    config_done(&c);
    return 0;
}

static void test_installed(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(check_installed());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("no mount namespace: not root?\n");
        skip();
    }
    assert_int_equal(status, 0);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_order),     IN_FOLDER(test_too_many),
        IN_FOLDER(test_merging),   IN_FOLDER(test_faults_name_the_dropin),
        IN_FOLDER(test_word_list), IN_FOLDER(test_dangling_link),
        IN_FOLDER(test_check),     cmocka_unit_test(test_installed),
    };

    return cmocka_run_group_tests_name("config-files", tests, NULL, NULL);
}
