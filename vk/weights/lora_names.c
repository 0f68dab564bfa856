#include "vk/weights/lora_names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/weights/single.h"
#include "vk/weights/weights-private.h"

#define UNET "lora_unet_"
#define TEXT "lora_te_"

/* --- names of tensors ------------------------------------------------------------------------- */

static const struct {
    const char *ending;
    enum lora_role role;
} endings[] = {
    {".lora_down.weight", LORA_DOWN},
    {".lora_up.weight", LORA_UP},
    {".lora_A.weight", LORA_DOWN},
    {".lora_B.weight", LORA_UP},
    {".lora_A.default.weight", LORA_DOWN},
    {".lora_B.default.weight", LORA_UP},
    {".lora.down.weight", LORA_DOWN},
    {".lora.up.weight", LORA_UP},
    {"_lora.down.weight", LORA_DOWN},
    {"_lora.up.weight", LORA_UP},
    {".lora_linear_layer.down.weight", LORA_DOWN},
    {".lora_linear_layer.up.weight", LORA_UP},
    {".lora.alpha", LORA_ALPHA},
    {"_lora.alpha", LORA_ALPHA},
    {".alpha", LORA_ALPHA},
};

static const char *const foreign[] = {
    ".hada_",     ".lokr_",           ".dora_scale", ".lora_magnitude_vector",
    ".lora_mid.", ".lora_embedding_", ".oft_",       ".on_input",
    ".diff",
};

static const struct {
    const char *from, *to;
} beginnings[] = {
    {"lora_unet_", UNET},    {"lora_te_", TEXT}, {"unet.", UNET},
    {"text_encoder.", TEXT}, {"unet_", UNET},    {"text_model.", TEXT "text_model."},
};

/* Older and shorter names of the same modules; the names have their dots replaced by then. */
static const struct {
    const char *from, *to;
} aliases[] = {
    {"_self_attn_to_q", "_self_attn_q_proj"},
    {"_self_attn_to_k", "_self_attn_k_proj"},
    {"_self_attn_to_v", "_self_attn_v_proj"},
    {"_self_attn_to_out", "_self_attn_out_proj"},
    {"_to_out", "_to_out_0"},
};

static bool begins_with(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* The module in kohya's form: who it belongs to, then its path with dots replaced. */
static void spell_module(const char *base, size_t length, char ret[LORA_NAME_MAX])
{
    static const char processor[] = ".processor.", peft[] = "base_model.model.";
    char text[LORA_NAME_MAX];
    const char *owner = UNET, *rest = text;

    (void)snprintf(text, sizeof text, "%.*s", (int)length, base);
    if (begins_with(rest, peft))
        rest += sizeof peft - 1;
    for (size_t i = 0; i < ARRAY_SIZE(beginnings); i++) {
        if (!begins_with(rest, beginnings[i].from))
            continue;
        owner = beginnings[i].to;
        rest += strlen(beginnings[i].from);
        break;
    }
    char *middle = strstr(text, processor);
    if (middle && middle >= rest)
        memmove(middle, middle + sizeof processor - 2, strlen(middle + sizeof processor - 2) + 1);
    (void)snprintf(ret, LORA_NAME_MAX, "%s%.*s", owner, (int)(LORA_NAME_MAX - 1 - strlen(owner)),
                   rest);
    for (char *at = ret; *at; at++)
        *at = *at == '.' ? '_' : *at;
}

static void replace_alias(char module[LORA_NAME_MAX])
{
    size_t n = strlen(module);

    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
        size_t m = strlen(aliases[i].from);
        if (!file_has_ending(module, aliases[i].from))
            continue;
        (void)snprintf(module + n - m, LORA_NAME_MAX - (n - m), "%s", aliases[i].to);
        return;
    }
}

enum lora_role lora_parse_name(const char *tensor, char ret_module[LORA_NAME_MAX])
{
    size_t n = strlen(tensor);

    ret_module[0] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
        if (strstr(tensor, foreign[i]))
            return LORA_FOREIGN;
    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        if (!file_has_ending(tensor, endings[i].ending))
            continue;
        spell_module(tensor, n - strlen(endings[i].ending), ret_module);
        replace_alias(ret_module);
        return endings[i].role;
    }
    return LORA_NO_ROLE;
}

/* --- names of modules ------------------------------------------------------------------------- */

struct entry {
    char *module;
    uint32_t part;
};

struct lora_names {
    struct ARRAY(struct entry) entries; /* sorted */
};

static int add_entry(struct lora_names *names, const char *owner, const char *path, size_t length,
                     uint32_t part)
{
    struct entry *e = array_push(&names->entries);

    if (!e)
        return -ENOMEM;
    e->part = part;
    if (asprintf(&e->module, "%s%.*s", owner, (int)length, path) < 0) {
        names->entries.count--;
        return -ENOMEM;
    }
    for (char *at = e->module; *at; at++)
        *at = *at == '.' ? '_' : *at;
    return 0;
}

/* What LDM's names depend on: layers of a block, and where transformers are on the way up. */
static void describe_unet(const struct weights *w, struct single_facts *facts)
{
    uint32_t level, layer;

    for (size_t i = 0; i < w->parts.count; i++) {
        const struct weight_want *want = &w->parts.items[i].want;
        if (want->component != WEIGHTS_UNET)
            continue;
        if (sscanf(want->name, "down_blocks.%u.resnets.%u.", &level, &layer) == 2 &&
            layer + 1 > facts->unet.layers)
            facts->unet.layers = layer + 1;
        if (sscanf(want->name, "up_blocks.%u.attentions.%u.", &level, &layer) == 2 &&
            level < SINGLE_LEVELS_MAX)
            facts->unet.up_attention[level] = true;
    }
}

/* A matrix of the U-Net under both of its names, one of the text encoder under its own. */
static int add_part(struct lora_names *names, const struct single_facts *facts,
                    const struct weight_want *want, uint32_t index)
{
    static const char ldm[] = "model.diffusion_model.", ending[] = ".weight";
    struct single_name other;

    if (want->pack != PACK_GEMM || !file_has_ending(want->name, ending))
        return 0;
    size_t length = strlen(want->name) - (sizeof ending - 1);
    if (want->component == WEIGHTS_TEXT_ENCODER)
        return add_entry(names, TEXT, want->name, length, index);
    if (want->component != WEIGHTS_UNET)
        return 0;
    int r = add_entry(names, UNET, want->name, length, index);
    if (r < 0)
        return r;
    single_translate(facts, WEIGHTS_UNET, want->name, &other);
    const char *path = other.text + sizeof ldm - 1;
    return add_entry(names, UNET, path, strlen(path) - (sizeof ending - 1), index);
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->module, ((const struct entry *)b)->module);
}

int lora_names_new(const struct weights *w, struct lora_names **ret_names, struct fault *f)
{
    _cleanup_(lora_names_freep) struct lora_names *names = calloc(1, sizeof *names);
    struct single_facts facts = {0};
    int r = names ? 0 : -ENOMEM;

    describe_unet(w, &facts);
    for (size_t i = 0; i < w->parts.count && r == 0; i++)
        r = add_part(names, &facts, &w->parts.items[i].want, (uint32_t)i);
    if (r < 0)
        return fault_set(f, r, "out of memory");
    if (names->entries.count > 0)
        qsort(names->entries.items, names->entries.count, sizeof names->entries.items[0],
              compare_entries);
    *ret_names = TAKE_PTR(names);
    return 0;
}

struct lora_names *lora_names_free(struct lora_names *names)
{
    if (!names)
        return NULL;
    for (size_t i = 0; i < names->entries.count; i++)
        free(names->entries.items[i].module);
    array_done(&names->entries);
    free(names);
    return NULL;
}

int lora_names_find(const struct lora_names *names, const char *module, uint32_t *ret_part)
{
    const struct entry key = {.module = (char *)(uintptr_t)module};
    const struct entry *e = names->entries.count
                                ? bsearch(&key, names->entries.items, names->entries.count,
                                          sizeof names->entries.items[0], compare_entries)
                                : NULL;

    if (!e)
        return -ENOENT;
    *ret_part = e->part;
    return 0;
}
