/* embed — token and position rows. Kernel: shaders/embed.comp. */
#include "vk/ops/ops-private.h"

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/embed.h"

int embed_check(const union op_args *args, struct fault *f)
{
    const struct embed_args *a = &args->embed;
    const struct rule rules[] = {
        {a->rows > 0 && a->c > 0 && a->length > 0, "an empty tensor"},
        {a->length <= a->positions, "a text is longer than there are positions"},
        {(uint64_t)a->rows * pad8(a->c) <= INT32_MAX, "too large to index"},
        {a->first_word <= INT32_MAX, "too many words"},
    };

    return ops_check("embed", rules, ARRAY_SIZE(rules), f);
}

int embed_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                 struct dispatch *ret_dispatch, struct fault *f)
{
    const struct embed_args *a = &args->embed;
    uint32_t v = pad8(a->c) / 8, lanes = ops_lanes(caps);
    struct dispatch d = {.kernel = "embed",
                         .spec_count = EMBED_SPEC_COUNT,
                         .push_count = EMBED_PUSH_COUNT,
                         .groups = {(uint32_t)div_up(v, lanes), a->rows, 1}};
    const struct launch_need need = {
        .op = "embed",
        .texel_uvec4 = (uint64_t)a->positions * v, /* the vocabulary is the recorder's to judge */
        .binding_bytes = (uint64_t)a->rows * v * 32,
        .invocations = lanes,
    };

    d.spec[EMBED_SPEC_LX] = lanes;
    d.push[EMBED_PUSH_ROWS] = a->rows;
    d.push[EMBED_PUSH_V] = v;
    d.push[EMBED_PUSH_LENGTH] = a->length;
    d.push[EMBED_PUSH_WORDS] = a->has_words ? a->first_word : INT32_MAX;
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost embed_cost(const union op_args *args)
{
    const struct embed_args *a = &args->embed;
    uint64_t bytes = (uint64_t)a->rows * pad8(a->c) * 2;

    return (struct op_cost){
        .bytes_read = 2 * bytes + 4ull * a->rows,
        .bytes_written = 2 * bytes,
    };
}
