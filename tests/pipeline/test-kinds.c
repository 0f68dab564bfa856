/* Models that need more than a ticket: inpainting with a checkpoint in one file. The picture and
 * the mask are those of tests/golden/kinds.py. What a ticket can say is in test-golden. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/golden.h"
#include "vk/engine.h"

#define WIDTH  24u
#define HEIGHT 32u

static const char ticket[] = "[job]\nprompt = a red kite\nimage = given\nmask = given\n"
                             "width = 24\nheight = 32\nsteps = 6\nguidance_scale = 3\nseed = 42\n";

struct compared {
    const struct golden *golden;
    size_t count;
    char trouble[160];
};

static void on_tensor(uint32_t picture, const struct engine_tensor *t, void *userdata)
{
    struct compared *c = userdata;
    const struct golden_tensor *want = golden_find(c->golden, t->name);
    bool is_first = strcmp(t->name, "latents.000") == 0;

    (void)picture;
    if (!want)
        return;
    c->count++;
    if (strcmp(t->name, "image") == 0) {
        double psnr = golden_psnr(t->data, want->f32, want->count);
        (void)printf("%s: %.1f dB\n", t->name, psnr);
        if (!(psnr >= 45))
            (void)snprintf(c->trouble, sizeof c->trouble, "picture: %.1f dB", psnr);
        return;
    }
    double error = golden_relative_l2(t->data, want->f32, want->count);
    (void)printf("%s: %.1e\n", t->name, error);
    if (!(error <= (is_first ? 5e-3 : 1e-2)))
        (void)snprintf(c->trouble, sizeof c->trouble, "%s: %.3e", t->name, error);
}

static void test_single_inpaint(void **state)
{
    static const struct engine_observer observer = {.on_tensor = on_tensor};
    static const char model[] = "tests/golden/models/kind-single-inpaint";
    static uint8_t rgb[HEIGHT][WIDTH][3], mask[HEIGHT][WIDTH];
    const struct engine_inputs inputs = {.image = {&rgb[0][0][0], WIDTH, HEIGHT, 3},
                                         .mask = {&mask[0][0], WIDTH, HEIGHT, 1}};
    struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES};
    struct compared c = {.golden = golden_open("tests/golden/kinds/single-inpaint.safetensors")};
    struct request_context context;
    struct engine *engine = NULL;
    struct request request = {0};
    struct fault f = {0};

    (void)state;
    assert_non_null(c.golden);
    for (uint32_t y = 0; y < HEIGHT; y++)
        for (uint32_t x = 0; x < WIDTH; x++) {
            mask[y][x] = x >= WIDTH / 4 && x < 3 * WIDTH / 4 && y >= HEIGHT / 3 ? 255 : 0;
            for (uint32_t k = 0; k < 3; k++)
                rgb[y][x][k] = (uint8_t)(x * 37 + y * 91 + k * 53);
        }
    if (request_parse_ticket(ticket, strlen(ticket), NULL, &request, &f) < 0 ||
        engine_read_context(model, &context, &f) < 0 ||
        request_complete(&request, NULL, &context, &f) < 0 ||
        request_check(&request, &context, &f) < 0 ||
        engine_open(model, &options, &engine, &f) < 0 ||
        engine_run(engine, &request, &inputs, &observer, &c, &f) < 0)
        fail_msg("%s", f.text);
    assert_int_equal(c.count, golden_count(c.golden));
    if (c.trouble[0])
        fail_msg("%s", c.trouble);
    engine_close(engine);
    request_done(&request);
    golden_free((struct golden *)(uintptr_t)c.golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_single_inpaint)};

    return cmocka_run_group_tests_name("kinds", tests, NULL, NULL);
}
