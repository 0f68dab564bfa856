/* The n-th request for memory fails in everything that reads what others wrote: configuration,
 * tickets, records, tokenizer, model directory, weights' declarations; and in the request's and the
 * picture's functions. Exhaustive, once and with all that follow; each trial gives -ENOMEM or the
 * right answer, and leaves nothing behind. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/config.h"
#include "daemon/devices.h"
#include "daemon/picture.h"
#include "daemon/png.h"
#include "daemon/record.h"
#include "tests/oom/oom.h"
#include "tests/support/folder.h"
#include "tests/support/safetensors_write.h"
#include "vk/base/file.h"
#include "vk/base/json.h"
#include "vk/pipeline/image.h"
#include "vk/pipeline/model.h"
#include "vk/pipeline/request.h"
#include "vk/pipeline/safety.h"
#include "vk/pipeline/session.h"
#include "vk/weights/lora_file.h"
#include "vk/weights/safetensors.h"

#define MODEL "tests/golden/models/two"

static const char ticket[] = "[job]\nprompt = a red fox\nnegative_prompt = rain\nsteps = 3\n"
                             "guidance_scale = 2.5\nscheduler = euler\ntoken = t\npreset = p\n"
                             "width = 64\nseed = 9\n";

/* --- request ---------------------------------------------------------------------------------- */

static int parse_ticket(void *userdata, struct fault *f)
{
    struct request q = {0};

    (void)userdata;
    int r = request_parse_ticket(ticket, strlen(ticket), NULL, &q, f);
    oom_disarm();
    if (r >= 0) {
        assert_string_equal(q.prompt, "a red fox");
        assert_string_equal(q.negative_prompt, "rain");
        assert_int_equal(q.steps, 3);
    } else {
        assert_int_equal(q.set, 0);
    }
    request_done(&q);
    return r;
}

static void get_request(struct request *ret_request)
{
    *ret_request = (struct request){0};
    assert_int_equal(request_parse_ticket(ticket, strlen(ticket), NULL, ret_request, NULL), 0);
}

static int copy_request(void *userdata, struct fault *f)
{
    const struct request *from = userdata;
    struct request to = {0};

    int r = request_copy(from, &to);
    oom_disarm();
    if (r >= 0)
        assert_string_equal(to.negative_prompt, from->negative_prompt);
    f->err = r;
    request_done(&to);
    return r;
}

static int complete_request(void *userdata, struct fault *f)
{
    const struct request *defaults = userdata;
    struct request_context context = {
        .width = 64, .height = 64, .multiple = 8, .train_steps = 1000, .scheduler = SCHEDULER_LMS};
    struct request q = {0};

    int r = request_complete(&q, defaults, &context, f);
    oom_disarm();
    if (r >= 0) {
        assert_string_equal(q.prompt, "a red fox");
        assert_int_equal(request_check(&q, &context, f), 0);
    }
    request_done(&q);
    return r;
}

static int format_rows(void *userdata, struct fault *f)
{
    const struct request *q = userdata;
    int r = 0;

    (void)f;
    for (size_t i = 0; i < REQUEST_ROW_COUNT && r >= 0; i++) {
        char *text = NULL;
        r = request_format(q, &request_rows[i], &text);
        free(text);
    }
    return r;
}

static void test_request(void **state)
{
    struct request q;

    (void)state;
    (void)oom_exhaust("ticket", parse_ticket, NULL);
    get_request(&q);
    (void)oom_exhaust("request copy", copy_request, &q);
    (void)oom_exhaust("request complete", complete_request, &q);
    (void)oom_exhaust("request format", format_rows, &q);
    request_done(&q);
}

/* --- configuration, devices ------------------------------------------------------------------- */

static int parse_config(void *userdata, struct fault *f)
{
    static const char text[] = "[model]\npath = m\n[device]\nnode = 0 1\n[unknown]\nkey = 1\n"
                               "[defaults]\nsteps = 20\nnegative_prompt = rain\n"
                               "[preset fast]\nsteps = 4\nnegative_prompt = a\n";
    struct config c = {0};

    (void)userdata;
    int r = config_parse(text, strlen(text), "x.conf", "/here", &c, f);
    oom_disarm();
    if (r >= 0) {
        assert_string_equal(c.model_path, "/here/m");
        assert_string_equal(c.defaults.negative_prompt, "rain");
        assert_string_equal(c.spool_path, "/var/spool/diffused");
        assert_int_equal(c.device_node_count, 2);
        assert_non_null(config_find_preset(&c, "fast"));
    }
    config_done(&c);
    return r;
}

static int read_config(void *userdata, struct fault *f)
{
    struct config c = {0};

    (void)userdata;
    int r = config_read("etc/diffused.conf", &c, f);
    config_done(&c);
    return r;
}

static int parse_devices(void *userdata, struct fault *f)
{
    static const char text[] =
        "{\"devices\": [{\"name\": \"a\", \"memory\": 5}, {\"name\": \"a\"}]}";
    struct device_list list = {0};

    (void)userdata;
    int r = devices_parse(text, strlen(text), &list, f);
    oom_disarm();
    if (r >= 0)
        assert_int_equal(list.count, 2);
    array_done(&list);
    return r;
}

static void test_configuration(void **state)
{
    (void)state;
    (void)oom_exhaust("configuration", parse_config, NULL);
    (void)oom_exhaust("configuration file", read_config, NULL);
    (void)oom_exhaust("devices", parse_devices, NULL);
}

/* --- records ---------------------------------------------------------------------------------- */

static struct job *make_job(void)
{
    struct job *job = job_new(17, 1000);

    assert_non_null(job);
    get_request(&job->request);
    assert_int_equal(job_add_warning(job, "first"), 0);
    assert_int_equal(job_add_warning(job, "second"), 0);
    (void)fault_set(&job->error, -ENOMEM, "no memory");
    for (uint32_t i = 0; i < 2; i++)
        job->pictures[i] = (struct job_picture){
            .width = 64, .height = 64, .seed = 9 + i, .bytes = 7, .sha256 = "0123"};
    job->picture_count = 2;
    return job;
}

static int format_request(void *userdata, struct fault *f)
{
    char *text = NULL;

    int r = record_format_request(userdata, &text);
    oom_disarm();
    if (r >= 0) {
        struct job *again = job_new(17, 0);
        assert_int_equal(record_parse_request(text, strlen(text), again, f), 0);
        assert_string_equal(again->request.prompt, "a red fox");
        assert_int_equal(again->request.set, ((struct job *)userdata)->request.set);
        (void)job_free(again);
    }
    free(text);
    return r;
}

static int format_result(void *userdata, struct fault *f)
{
    char *text = NULL;

    int r = record_format_result(userdata, JOB_STATE_FAILED, &text);
    oom_disarm();
    if (r >= 0) {
        struct job *again = job_new(17, 0);
        assert_int_equal(record_parse_result(text, strlen(text), JOB_STATE_FAILED, again, f), 0);
        assert_int_equal(again->warnings.count, 2);
        assert_int_equal(again->picture_count, 2);
        (void)job_free(again);
    }
    free(text);
    return r;
}

static int parse_request(void *userdata, struct fault *f)
{
    struct job *job = job_new(17, 0);
    int r = job ? record_parse_request(userdata, strlen(userdata), job, f) : -ENOMEM;

    oom_disarm();
    if (r >= 0)
        assert_string_equal(job->request.negative_prompt, "rain");
    (void)job_free(job);
    return r;
}

static int parse_result(void *userdata, struct fault *f)
{
    struct job *job = job_new(17, 0);
    int r =
        job ? record_parse_result(userdata, strlen(userdata), JOB_STATE_FAILED, job, f) : -ENOMEM;

    oom_disarm();
    if (r >= 0)
        assert_int_equal(job->warnings.count, 2);
    (void)job_free(job);
    return r;
}

static int copy_job(void *userdata, struct fault *f)
{
    struct job *copy = NULL;
    int r = job_copy(userdata, &copy);

    (void)f;
    oom_disarm();
    if (copy)
        assert_int_equal(copy->warnings.count, 2);
    (void)job_free(copy);
    return r;
}

static void test_records(void **state)
{
    struct job *job = make_job();
    char *text = NULL;

    (void)state;
    (void)oom_exhaust("request.json written", format_request, job);
    (void)oom_exhaust("result.json written", format_result, job);
    (void)oom_exhaust("job copy", copy_job, job);
    assert_int_equal(record_format_request(job, &text), 0);
    (void)oom_exhaust("request.json read", parse_request, text);
    free(text);
    assert_int_equal(record_format_result(job, JOB_STATE_FAILED, &text), 0);
    (void)oom_exhaust("result.json read", parse_result, text);
    free(text);
    (void)job_free(job);
}

/* --- model ------------------------------------------------------------------------------------ */

/* A model with few words: `userdata` is its directory. */
static void make_model(const char *directory)
{
    static const char *const linked[] = {"text_encoder", "unet", "vae", "scheduler"};
    static const struct {
        const char *name, *text;
    } files[] = {
        {"vocab.json", "{\"<|startoftext|>\": 0, \"<|endoftext|>\": 1, \"a\": 2, \"b</w>\": 3,"
                       " \"ab</w>\": 4, \"c\": 5}"},
        {"merges.txt", "#version\na b</w>\n"},
        {"tokenizer_config.json", "{\"bos_token\": {\"content\": \"<|startoftext|>\"}}"},
        {"special_tokens_map.json", "{\"additional_special_tokens\": [\"c\"]}"},
        {"added_tokens.json", "{\"zz\": 6}"},
    };
    char path[PATH_MAX], target[PATH_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(linked); i++) {
        assert_non_null(realpath(MODEL, target));
        assert_true(snprintf(path, sizeof path, "%s/%s", target, linked[i]) < PATH_MAX);
        assert_true(snprintf(target, sizeof target, "%s/%s", directory, linked[i]) < PATH_MAX);
        assert_int_equal(symlink(path, target), 0);
    }
    (void)snprintf(path, sizeof path, "%s/tokenizer", directory);
    assert_int_equal(mkdir(path, 0700), 0);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        (void)snprintf(path, sizeof path, "%s/tokenizer/%s", directory, files[i].name);
        assert_int_equal(file_write_atomic(path, files[i].text, strlen(files[i].text), NULL), 0);
    }
}

static int open_tokenizer(void *userdata, struct fault *f)
{
    struct clip_bpe *t = NULL;
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/tokenizer", (const char *)userdata);
    int r = clip_bpe_open(path, &t, f);
    (void)clip_bpe_free(t);
    return r;
}

static int encode(void *userdata, struct fault *f)
{
    static const char text[] = "a red f\xc3\xb6x's <|endoftext|> \xf0\x9f\xa6\x8a 12";
    int32_t ids[77];

    return clip_bpe_encode(userdata, text, strlen(text), 77, ids, NULL, f);
}

static void test_tokenizer(void **state)
{
    struct clip_bpe *t = NULL;

    (void)state;
    assert_int_equal(clip_bpe_open(MODEL "/tokenizer", &t, NULL), 0);
    (void)oom_exhaust("text to ids", encode, t);
    (void)clip_bpe_free(t);
}

static int open_file(void *userdata, struct fault *f)
{
    struct safetensors *s = NULL;
    char byte;

    (void)userdata;
    int r = safetensors_open(MODEL "/unet/diffusion_pytorch_model.safetensors", NULL, &s, f);
    if (r >= 0)
        r = safetensors_read(s, safetensors_get(s, 0), 0, &byte, 1, f);
    (void)safetensors_close(s);
    return r;
}

static int open_model(void *userdata, struct fault *f)
{
    struct model *m = NULL;

    int r = model_open(userdata, &m, f);
    (void)model_free(m);
    return r;
}

/* All that loading does before a device is needed. */
static int declare_weights(void *userdata, struct fault *f)
{
    const struct model *m = userdata;
    struct weights *w = NULL;

    int r = weights_open(MODEL, &w, f);
    if (r >= 0)
        r = session_declare_weights(m, w, f);
    (void)weights_free(w);
    return r;
}

static int build_graphs(void *userdata, struct fault *f)
{
    const struct model *m = userdata;
    struct session_shape shape = {.width = 64, .height = 64, .batch = 2};
    struct session_layout layout;
    struct weights *w = NULL;

    session_layout_make(m, &shape, &layout);
    int r = weights_open(NULL, &w, f);
    for (int which = 0; which < SESSION_GRAPH_COUNT && r >= 0; which++) {
        struct graph *g = NULL;
        r = session_build_graph(m, w, &layout, (enum session_graph)which, true, &g, f);
        (void)graph_free(g);
    }
    (void)weights_free(w);
    return r;
}

/* A LoRA against a model, as far as no device is needed. */
static int open_lora(void *userdata, struct fault *f)
{
    static const char path[] = "tests/golden/lora/full-peft.safetensors";
    const struct weights *w = userdata;
    struct lora_matrices matrices = {0};
    struct lora_names *names = NULL;
    struct lora_file *file = NULL;

    int r = lora_names_new(w, &names, f);
    if (r >= 0)
        r = lora_file_open(path, path, w, names, &file, f);
    if (r >= 0)
        r = lora_file_read(file, 0, w, &matrices, f);
    lora_matrices_done(&matrices);
    (void)lora_file_close(file);
    (void)lora_names_free(names);
    return r;
}

static int open_safety(void *userdata, struct fault *f)
{
    struct safety *s = NULL;

    (void)userdata;
    int r = safety_open("tests/golden/safety/seven", NULL, NULL, &s, f);
    (void)safety_free(s);
    return r;
}

/* Words of the text encoder's width beside the model. */
static void make_embeddings(const char *directory, uint32_t width)
{
    static const char *const words[] = {"<x>", "<y>", "<z>"};
    static const float numbers[2 * 1024];
    char path[PATH_MAX];

    assert_true(width <= 1024);
    (void)snprintf(path, sizeof path, "%s/embeddings", directory);
    assert_int_equal(mkdir(path, 0700), 0);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        const struct safetensors_item item = {words[i], "F32", 2, {2, width}, numbers};
        (void)snprintf(path, sizeof path, "%s/embeddings/%zu.safetensors", directory, i);
        assert_int_equal(safetensors_write(path, &item, 1, NULL), 0);
    }
}

static void test_extras(void **state)
{
    struct model *m = NULL;
    struct weights *w = NULL;

    make_model(*state);
    assert_int_equal(model_open(*state, &m, NULL), 0);
    make_embeddings(*state, m->text.hidden_size);
    (void)oom_exhaust("embeddings", open_model, *state);
    assert_int_equal(weights_open(MODEL, &w, NULL), 0);
    assert_int_equal(session_declare_weights(m, w, NULL), 0);
    (void)oom_exhaust("lora", open_lora, w);
    (void)oom_exhaust("safety checker", open_safety, NULL);
    (void)weights_free(w);
    (void)model_free(m);
}

static int make_table(void *userdata, struct fault *f)
{
    const struct model *m = userdata;
    int r = 0;

    for (uint32_t i = 0; i < SCHED_COUNT && r >= 0; i++) {
        struct sched_table table = {0};
        r = sched_make(&(struct sched_spec){.sched = i, .steps = 20}, &m->sched, &table, f);
        sched_table_done(&table);
    }
    return r;
}

static void test_model(void **state)
{
    struct model *m = NULL;

    make_model(*state);
    (void)oom_exhaust("tokenizer", open_tokenizer, *state);
    (void)oom_exhaust("safetensors", open_file, NULL);
    (void)oom_exhaust("model", open_model, *state);
    assert_int_equal(model_open(*state, &m, NULL), 0);
    (void)oom_exhaust("weights", declare_weights, m);
    (void)oom_exhaust("graphs", build_graphs, m);
    (void)oom_exhaust("schedulers", make_table, m);
    (void)model_free(m);
}

/* --- pictures --------------------------------------------------------------------------------- */

static const uint8_t pixels[16 * 16 * 3];

static int encode_png(void *userdata, struct fault *f)
{
    static const struct png_facts facts = {.prompt = "a f\xc3\xb6x \xf0\x9f\xa6\x8a",
                                           .negative_prompt = "rain",
                                           .model = "demo",
                                           .model_hash = "0123456789",
                                           .width = 16,
                                           .height = 16,
                                           .steps = 3,
                                           .guidance_scale = 2.5,
                                           .seed = 7};
    const enum png_metadata *metadata = userdata;
    struct picture back = {0};
    uint8_t *data = NULL;
    size_t size;

    int r = png_encode(pixels, 16, 16, &facts, *metadata, &data, &size, f);
    oom_disarm();
    if (r >= 0) {
        assert_int_equal(picture_decode("png", data, size, &back, f), 0);
        assert_memory_equal(back.pixels, pixels, sizeof pixels);
        assert_int_equal(memmem(data, size, "Negative prompt: rain", 21) != NULL,
                         *metadata == PNG_METADATA_FULL);
    }
    free(data);
    picture_done(&back);
    return r;
}

/* Reading is test_sent_pictures()'s. */
static void test_pictures(void **state)
{
    (void)state;
    for (enum png_metadata m = PNG_METADATA_FULL; m <= PNG_METADATA_NONE; m++)
        (void)oom_exhaust("picture written", encode_png, &m);
}

/* A file that was sent, to planes and to masks. */
static int take_picture(void *userdata, struct fault *f)
{
    const struct file {
        char *data;
        size_t size;
    } *file = userdata;
    static float planes[3 * 16 * 24], mask[16 * 24];
    const struct image_target to = {16, 24, FIT_CONTAIN};
    struct picture p = {0};

    int r = picture_decode("image", file->data, file->size, &p, f);
    const struct engine_raster in = {p.pixels, p.width, p.height, 3};
    if (r == 0)
        r = image_prepare(&in, &to, planes, f);
    if (r == 0)
        r = mask_prepare(&in, &to, 8, MASK_BINARY, mask, NULL, f);
    picture_done(&p);
    return r;
}

static void test_sent_pictures(void **state)
{
    static const char *const names[] = {"rgba-16.png", "palette-4-trns.png", "exif-5.png",
                                        "exif-6.jpg",  "cmyk.jpg",           "progressive.jpg"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct {
            char *data;
            size_t size;
        } file = {0};
        char path[128];
        (void)snprintf(path, sizeof path, "tests/golden/pictures/files/%s", names[i]);
        assert_int_equal(file_read(path, 1 << 16, &file.data, &file.size, NULL), 0);
        (void)oom_exhaust(names[i], take_picture, &file);
        free(file.data);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_configuration),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_tokenizer),
        cmocka_unit_test_setup_teardown(test_model, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_extras, folder_setup, folder_teardown),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_sent_pictures),
    };

    (void)argc;
    if (!oom_begin(argv))
        return 1;
    return cmocka_run_group_tests_name("readers without memory", tests, NULL, NULL);
}
