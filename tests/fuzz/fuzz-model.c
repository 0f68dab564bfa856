/* A model's config.json files. Input: one digit naming the file (0 text encoder, 1 U-Net, 2 VAE, 3
 * scheduler); the JSON. What is accepted keeps the promises that the graph's builders rely on; one
 * in sixteen builds and plans its graphs at the smallest size (declarations only, no device), and
 * one in four its table of steps. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vk/base/json.h"
#include "vk/graph/build.h"
#include "vk/pipeline/model.h"
#include "vk/pipeline/session.h"

static const int errors[] = {-EINVAL, -EFBIG, 0};

/* The other parts of the model while one is being read: as small as they may be. */
static struct model small_model(void)
{
    return (struct model){.text = {.vocab_size = 9,
                                   .hidden_size = 8,
                                   .intermediate_size = 8,
                                   .layers = 1,
                                   .heads = 1,
                                   .positions = 5,
                                   .eps = 1e-5f},
                          .unet = {.levels = 2,
                                   .channels = {8, 16},
                                   .down_attention = {true, false},
                                   .up_attention = {false, true},
                                   .heads = {1, 1},
                                   .layers = 1,
                                   .groups = 4,
                                   .eps = 1e-5f,
                                   .context_width = 8,
                                   .in_channels = 4,
                                   .out_channels = 4,
                                   .sample_size = 8,
                                   .downsample_padding = 1,
                                   .flip_sin_to_cos = true},
                          .vae = {.levels = 2,
                                  .channels = {8, 8},
                                  .layers = 1,
                                  .groups = 4,
                                  .latent_channels = 4,
                                  .scaling_factor = 1}};
}

/* --- what is accepted ------------------------------------------------------------------------- */

static void check_text(const struct clip_text_config *c)
{
    fuzz_check(c->layers >= 1 && c->layers <= CLIP_TEXT_LAYERS_MAX);
    fuzz_check(c->heads >= 1 && c->hidden_size % c->heads == 0);
    fuzz_check(c->hidden_size <= MODEL_WIDTH_MAX && c->vocab_size >= 2 && c->positions >= 3);
    fuzz_check(c->eps >= 0 && c->eps <= 1);
}

static void check_unet(const struct unet_config *c)
{
    struct unet_transformer list[UNET_TRANSFORMERS_MAX];

    fuzz_check(c->levels >= 2 && c->levels <= MODEL_LEVELS_MAX);
    fuzz_check(c->layers >= 1 && c->layers <= MODEL_LAYERS_MAX);
    for (uint32_t i = 0; i < c->levels; i++) {
        fuzz_check(c->channels[i] >= 1 && c->channels[i] <= MODEL_WIDTH_MAX);
        fuzz_check(c->channels[i] % c->groups == 0 && c->channels[i] % c->heads[i] == 0);
    }
    fuzz_check(c->in_channels == 4 && c->out_channels == 4 && c->sample_size >= 1);
    uint32_t count = unet_transformers(c, list);
    fuzz_check(count <= UNET_TRANSFORMERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        fuzz_check(strnlen(list[i].scope, sizeof list[i].scope) < sizeof list[i].scope);
        fuzz_check(list[i].channels % list[i].heads == 0);
    }
}

static void check_vae(const struct vae_config *c)
{
    fuzz_check(c->levels >= 1 && c->levels <= MODEL_LEVELS_MAX);
    fuzz_check(c->layers >= 1 && c->layers <= MODEL_LAYERS_MAX && c->latent_channels == 4);
    for (uint32_t i = 0; i < c->levels; i++)
        fuzz_check(c->channels[i] >= 1 && c->channels[i] % c->groups == 0);
    fuzz_check(isfinite(1 / c->scaling_factor));
}

/* Any request at all of a configuration that was let in. */
static struct sched_spec make_spec(const struct sched_config *c, uint32_t hash)
{
    uint32_t steps = 1 + (hash >> 8) % c->train_steps;

    return (struct sched_spec){
        .sched = (hash >> 4) % SCHED_COUNT,
        .steps = steps < 60 ? steps : 60,
        .eta = (hash >> 9) % 3 / 2.,
        .sigmas = (enum sched_sigmas)((hash >> 11) % 3),
        .spacing = (enum sched_spacing)((hash >> 13) % 4),
        .prediction = (enum sched_prediction)((hash >> 15) % 3),
        .compat = hash >> 17 & 1,
        .from_image = hash >> 18 & 1,
        .is_inpaint = hash >> 19 & 1,
        .strength = (hash >> 20) % 21 / 20.,
    };
}

static void check_sched(const struct sched_config *c, int index, uint32_t hash)
{
    struct sched_table table;
    struct fault f = {0};

    fuzz_check(c->train_steps >= 2 && c->train_steps <= SCHED_TRAIN_MAX);
    fuzz_check(index >= -1 && index < (int)SCHED_COUNT);
    if (hash % 4)
        return;
    struct sched_spec spec = make_spec(c, hash);
    int r = sched_make(&spec, c, &table, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        return;
    }
    for (uint32_t i = 0; i < table.count; i++) {
        const struct sched_row *row = &table.rows[i];
        fuzz_check(row->timestep >= 0 && row->timestep < c->train_steps);
        fuzz_check(isfinite((float)row->x_scale) && isfinite((float)row->conv_m));
        fuzz_check(isfinite((float)row->e_scale[0]) && isfinite((float)row->noise_scale));
    }
    fuzz_check(isfinite(table.init_noise_sigma));
    if (spec.from_image)
        fuzz_check(isfinite(table.start_image) && isfinite(table.start_noise));
    sched_table_done(&table);
}

/* --- graphs ----------------------------------------------------------------------------------- */

static void build_graphs(const struct model *m)
{
    uint32_t side = 8 * vae_factor(&m->vae);
    struct session_shape shape = {.width = side, .height = side, .batch = 2};
    struct session_layout layout;
    struct weights *w = NULL;
    struct fault f = {0};

    session_layout_make(m, &shape, &layout);
    fuzz_check(weights_open(NULL, &w, &f) == 0);
    for (int which = 0; which < SESSION_GRAPH_COUNT; which++) {
        struct graph *g = NULL;
        int r = session_build_graph(m, w, &layout, (enum session_graph)which, false, &g, &f);
        if (r < 0)
            fuzz_check_fault(r, &f, errors);
        else
            fuzz_check(graph_cost(g).macs > 0 && g->arena_size >= layout.end);
        (void)graph_free(g);
    }
    (void)weights_free(w);
}

/* --- one input -------------------------------------------------------------------------------- */

static uint32_t hash_of(const uint8_t *data, size_t size)
{
    uint32_t h = 2166136261u; /* FNV-1a */

    for (size_t i = 0; i < size; i++)
        h = (h ^ data[i]) * 16777619u;
    return h ^ h >> 15;
}

static int parse_part(char part, const json_t *root, struct model *m, struct fault *f)
{
    int r;

    if (part == '0') {
        r = clip_text_config_parse(root, &m->text, f);
        if (r == 0)
            check_text(&m->text);
        m->unet.context_width = m->text.hidden_size;
    } else if (part == '1') {
        r = unet_config_parse(root, &m->unet, f);
        if (r == 0)
            check_unet(&m->unet);
        m->text.hidden_size = m->unet.context_width;
        m->text.heads = 1;
    } else {
        r = vae_config_parse(root, &m->vae, f);
        if (r == 0)
            check_vae(&m->vae);
    }
    return r;
}

static void run_part(char part, const char *text, size_t length, uint32_t hash)
{
    json_t *root = NULL;
    struct model m = small_model();
    struct fault f = {0};

    int r = json_parse(text, length, &root, &f);
    if (r == 0 && json_is_object(root)) {
        r = parse_part(part, root, &m, &f);
        if (r == 0 && hash % 16 == 0)
            build_graphs(&m);
    }
    if (r < 0)
        fuzz_check_fault(r, &f, errors);
    json_decref(root);
}

static void run_sched(const char *text, size_t length, uint32_t hash)
{
    struct sched_config config;
    struct fault f = {0};
    float *betas = NULL;
    int index = 99;

    int r = sched_config_parse(text, length, &config, &index, &betas, &f);
    if (r < 0)
        fuzz_check_fault(r, &f, errors);
    else
        check_sched(&config, index, hash);
    free(betas);
}

static void run(const uint8_t *data, size_t size)
{
    if (size == 0)
        return;
    uint32_t hash = hash_of(data, size);
    if (data[0] == '3')
        run_sched((const char *)data + 1, size - 1, hash);
    else
        run_part((char)data[0], (const char *)data + 1, size - 1, hash);
}

static const char *const words[] = {
    "\"vocab_size\":",
    "\"hidden_size\":",
    "\"intermediate_size\":",
    "\"num_hidden_layers\":",
    "\"num_attention_heads\":",
    "\"max_position_embeddings\":",
    "\"layer_norm_eps\":",
    "\"hidden_act\":\"gelu\",",
    "\"block_out_channels\":[8,16],",
    "\"layers_per_block\":1,",
    "\"norm_num_groups\":4,",
    "\"cross_attention_dim\":8,",
    "\"attention_head_dim\":[1,2],",
    "\"attention_head_dim\":8,",
    "\"in_channels\":4,",
    "\"sample_size\":8,",
    "\"act_fn\":\"silu\",",
    "\"downsample_padding\":0,",
    "\"norm_eps\":1e-5,",
    "\"freq_shift\":0,",
    "\"down_block_types\":[\"CrossAttnDownBlock2D\",\"DownBlock2D\"],",
    "\"up_block_types\":[\"UpBlock2D\",\"CrossAttnUpBlock2D\"],",
    "\"latent_channels\":4,",
    "\"scaling_factor\":1,",
    "\"_class_name\":\"DDIMScheduler\",",
    "\"num_train_timesteps\":1000,",
    "\"beta_start\":0.001,",
    "\"beta_end\":0.01,",
    "\"beta_schedule\":\"linear\",",
    "\"beta_schedule\":\"squaredcos_cap_v2\",",
    "\"trained_betas\":[0.1,0.2],",
    "\"clip_sample\":true,",
    "\"set_alpha_to_one\":true,",
    "\"prediction_type\":\"epsilon\",",
    "null",
    "16384",
    "1e-8",
    NULL};

const struct fuzz_target fuzz_model = {
    .name = "model", .max_size = 4096, .run = run, .words = words};
