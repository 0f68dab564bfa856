/* diffusectl model: what is installed whole, what is refused by name, what verify finds. The model
 * is a small one of the goldens; archives are made here, wrong ones too. */
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "tests/support/service.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define MODEL     "tests/golden/models/two"

/* Work folder: models/ is what is installed into, src/ is a copy of the demo model to spoil. */
static char folder[64], models[96], source[96];

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void shell(const char *format, ...)
{
    char line[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (system(line) != 0)
        fail_msg("%s", line);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/diffused-model-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(models, sizeof models, "%s/models", folder);
    (void)snprintf(source, sizeof source, "%s/src", folder);
    shell("mkdir %s && cp -r " MODEL "/* %s/ && echo free >%s/NOTICE", source, source, source);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shell("rm -rf %s", folder);
    return 0;
}

static void run(const char *const *arguments, int status, const char *out, const char *err)
{
    struct command c = {.name = "diffusectl", .arguments = arguments};
    struct command_result r;

    assert_int_equal(command_start(&c), 0);
    command_finish(&c, &r);
    if (r.status != status || (out && !strstr(r.out, out)) || (err && !strstr(r.err, err)))
        fail_msg("%s %s %s: status %d, want %d, '%s', '%s'\n%s%s", arguments[0], arguments[1],
                 arguments[2] ? arguments[2] : "", r.status, status, out ? out : "", err ? err : "",
                 r.out, r.err);
    command_result_done(&r);
}

/* Installs `from` as "x"; nothing of a refused one is left behind. */
static void expect_refused(const char *from, const char *words)
{
    char path[160];
    struct stat st;

    run(ARGS("model", "install", from, "--name", "x", "--models", models), 1, NULL, words);
    (void)snprintf(path, sizeof path, "%s/x", models);
    assert_int_equal(stat(path, &st), -1);
    (void)snprintf(path, sizeof path, "%s/.x.new", models);
    assert_int_equal(stat(path, &st), -1);
}

static void test_install(void **state)
{
    char path[160];
    struct stat st;

    (void)state;
    (void)umask(0077); /* modes are set, whatever the umask */
    run(ARGS("model", "install", source, "--name", "demo", "--models", models), 0, "one was made",
        NULL);
    (void)umask(0022);
    shell("cd %s/demo && sha256sum --quiet --strict -c SHA256SUMS", models);
    (void)snprintf(path, sizeof path, "%s/demo/unet/config.json", models);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(st.st_uid, geteuid());
    (void)snprintf(path, sizeof path, "%s/demo/unet", models);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    run(ARGS("model", "verify", "demo", "--models", models), 0, "demo: good, ", NULL);

    run(ARGS("model", "install", source, "--name", "demo", "--models", models), 1, NULL,
        "--replace");
    /* from what has hashes, over what is there; and left-overs of an interrupted one do not hurt */
    shell("mkdir -p %s/.demo.new/unet && touch %s/.demo.new/unet/x", models, models);
    shell("cp -r %s/demo %s/with-sums", models, folder);
    (void)snprintf(path, sizeof path, "%s/with-sums", folder);
    run(ARGS("model", "install", path, "--name", "demo", "--models", models, "--replace"), 0,
        "hashes are those of the source", NULL);
    shell("test ! -e %s/.demo.new", models);
}

static void test_use(void **state)
{
    char config[160], path[160];

    (void)state;
    (void)snprintf(config, sizeof config, "%s/diffused.conf", folder);
    shell("echo '[limits]' >%s", config);
    run(ARGS("model", "install", source, "--name", "used", "--models", models, "-c", config,
             "--use"),
        0, "diffusectl reload", NULL);
    (void)snprintf(path, sizeof path, "%s/used", models);
    run(ARGS("model", "list", "--models", models, "-c", config), 0, "configured", NULL);
    struct command c = {.name = "diffusectl",
                        .arguments =
                            ARGS("model", "list", "--models", models, "-c", config, "--json")};
    struct command_result r;
    assert_int_equal(command_start(&c), 0);
    command_finish(&c, &r);
    json_t *list = json_loads(r.out, 0, NULL);
    assert_int_equal(json_array_size(list), 2);
    json_t *demo = json_array_get(list, 0), *used = json_array_get(list, 1);
    assert_true(json_is_false(json_object_get(demo, "Configured")));
    assert_true(json_is_true(json_object_get(used, "Configured")));
    assert_string_equal(json_string_value(json_object_get(used, "Path")), path);
    json_decref(list);
    command_result_done(&r);

    /* what counts is looked at, not what was written */
    shell("printf '[model]\\npath = /elsewhere\\n' >%s.d/99-other.conf", config);
    run(ARGS("model", "install", source, "--name", "used", "--models", models, "-c", config,
             "--use", "--replace"),
        1, NULL, "a later file sets it");
}

static void test_verify(void **state)
{
    (void)state;
    shell("cp -r %s/demo %s/spoilt", models, models);
    shell("printf x | dd of=%s/spoilt/unet/diffusion_pytorch_model.safetensors bs=1 seek=99999 "
          "conv=notrunc status=none",
          models);
    run(ARGS("model", "verify", "spoilt", "--models", models), 1,
        "unet/diffusion_pytorch_model.safetensors: damaged", NULL);
    shell("touch %s/spoilt/unet/diffusion_pytorch_model.fp16.safetensors", models);
    run(ARGS("model", "verify", "spoilt", "--models", models), 1, "fp16.safetensors: not listed",
        NULL);
    shell("rm %s/spoilt/vae/config.json", models);
    run(ARGS("model", "verify", "spoilt", "--models", models), 1, "vae/config.json: missing", NULL);
    shell("chmod g+w %s/spoilt/text_encoder/config.json", models);
    run(ARGS("model", "verify", "--models", models), 1, "mode 0664", NULL);
    run(ARGS("model", "verify", "--models", models), 1, "demo: good", NULL);
    run(ARGS("model", "verify", source), 1, "no SHA256SUMS", NULL);
    run(ARGS("model", "verify", "nothing", "--models", models), 10, NULL, "No such file");
    shell("rm -r %s/spoilt", models);
}

/* A copy of the source, spoilt by a command that stands in it. */
static void expect_spoilt(const char *command, const char *words)
{
    char path[96];

    (void)snprintf(path, sizeof path, "%s/bad", folder);
    shell("rm -rf %s && cp -r %s %s && cd %s && %s", path, source, path, path, command);
    expect_refused(path, words);
}

static void test_refused(void **state)
{
    static const struct {
        const char *command, *words;
    } rows[] = {
        {"mv unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.bin",
         "unet/diffusion_pytorch_model.bin: not copied: a pickle"},
        {"rm vae/config.json", "vae/config.json: No such file"},
        {"ln -sf /etc/passwd vae/extra.json", "vae/extra.json: a symbolic link"},
        {"rm -r vae && ln -s /etc vae", "vae: a symbolic link"},
        {"mkfifo unet/pipe.json", "unet/pipe.json: neither a file nor a directory"},
        {"truncate -s 1000000 unet/diffusion_pytorch_model.safetensors", "no model for this"},
        {"printf '{' >unet/config.json", "unet/config.json"},
        {"sed -i s/cross_attention_dim/x/ unet/config.json", "no model for this engine"},
        {"sha256sum */*.json *.json */*.safetensors >SHA256SUMS", "NOTICE: not listed"},
        {"sha256sum * */* 2>/dev/null >SHA256SUMS; echo >>vae/config.json",
         "vae/config.json: damaged"},
        {"sha256sum * */* 2>/dev/null >SHA256SUMS; rm NOTICE", "NOTICE: listed"},
        {"echo hello >SHA256SUMS", "SHA256SUMS:1: not a line"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        expect_spoilt(rows[i].command, rows[i].words);
    expect_refused("/dev/null", "neither a directory nor an archive");
    expect_refused("/etc/hostname", "/etc/hostname:");
    run(ARGS("model", "install", source, "--name", "../x", "--models", models), 2, NULL, "name");
    run(ARGS("model", "install", source, "--name", ".x", "--models", models), 2, NULL, "name");
}

static void test_archives(void **state)
{
    static const struct {
        const char *name, *file, *what; /* what: tar's arguments, standing in the work folder */
    } rows[] = {
        {"a", "a.tar", "-cf a.tar src"},
        {"b", "b.tar.gz", "-czf b.tar.gz -C src ."},
        {"c", "c.tar.xz", "-cJf c.tar.xz -C src unet vae tokenizer text_encoder scheduler"},
    };
    char path[160];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        shell("cd %s && tar %s", folder, rows[i].what);
        (void)snprintf(path, sizeof path, "%s/%s", folder, rows[i].file);
        run(ARGS("model", "install", path, "--models", models), 0, "files", NULL);
        run(ARGS("model", "verify", rows[i].name, "--models", models), 0, "good", NULL);
    }
    shell("head -c 500000 %s/b.tar.gz >%s/x.tar.gz", folder, folder);
    (void)snprintf(path, sizeof path, "%s/x.tar.gz", folder);
    expect_refused(path, "truncated");
}

struct evil {
    const char *path, *link;
    unsigned type;
    const char *words;
};

/* One entry that must not be unpacked, after one that may. */
static void write_evil(const char *to, const struct evil *e)
{
    static const char text[] = "{}";
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();

    assert_int_equal(archive_write_set_format_pax_restricted(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_filename(a, to), ARCHIVE_OK);
    for (int i = 0; i < 2; i++) {
        (void)archive_entry_clear(entry);
        archive_entry_set_pathname(entry, i ? e->path : "unet/config.json");
        archive_entry_set_filetype(entry, i ? e->type : AE_IFREG);
        archive_entry_set_perm(entry, 0644);
        archive_entry_set_size(entry, i && e->type != AE_IFREG ? 0 : 2);
        if (i && e->link && e->type == AE_IFLNK)
            archive_entry_set_symlink(entry, e->link);
        else if (i && e->link)
            archive_entry_set_hardlink(entry, e->link);
        assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
        if (!i || (e->type == AE_IFREG && !e->link))
            assert_int_equal(archive_write_data(a, text, 2), 2);
    }
    archive_entry_free(entry);
    assert_int_equal(archive_write_free(a), ARCHIVE_OK);
}

static void test_evil_archives(void **state)
{
    static const struct evil rows[] = {
        {"../evil.json", NULL, AE_IFREG, "leaves the archive's folder"},
        {"unet/../../evil.json", NULL, AE_IFREG, "leaves the archive's folder"},
        {"/tmp/diffused-evil.json", NULL, AE_IFREG, "leaves the archive's folder"},
        {"./../evil.json", NULL, AE_IFREG, "leaves the archive's folder"},
        {"unet/..", NULL, AE_IFREG, "leaves the archive's folder"},
        {"unet/config.json", NULL, AE_IFREG, "comes a second time"},
        {"vae", "/etc", AE_IFLNK, "vae: a link or device"},
        {"vae/config.json", "unet/config.json", AE_IFREG, "vae/config.json: a link or device"},
        {"vae/config.json", NULL, AE_IFCHR, "a link or device"},
        {"vae/config.json", NULL, AE_IFIFO, "a link or device"},
        {"vae/a\nb.json", NULL, AE_IFREG, "no part of a model"},
    };
    char path[160];
    struct stat st;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/evil.tar", folder);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        write_evil(path, &rows[i]);
        expect_refused(path, rows[i].words);
    }
    shell("test ! -e %s/evil.json && test ! -e /tmp/diffused-evil.json", folder);
    (void)snprintf(path, sizeof path, "%s/evil.json", models);
    assert_int_equal(stat(path, &st), -1);
}

/* A checkpoint in one file, with its model.json. */
static void test_single(void **state)
{
    (void)state;
    run(ARGS("model", "install", "tests/golden/models/kind-single-json", "--name", "single",
             "--models", models),
        0, "one was made", NULL);
    shell("cd %s/single && grep -q checkpoint.safetensors SHA256SUMS && test -f model.json",
          models);
    run(ARGS("model", "verify", "single", "--models", models), 0, "single: good, ", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_install),  cmocka_unit_test(test_use),
        cmocka_unit_test(test_verify),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_archives), cmocka_unit_test(test_evil_archives),
        cmocka_unit_test(test_single),
    };

    return cmocka_run_group_tests_name("model", tests, setup, teardown);
}
