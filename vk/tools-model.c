/* Whether a directory is a model that this engine takes, its safety checker and its small VAE
 * included, without a device: `diffused-worker --check-model`. */
#include "vk/tools.h"

#include <inttypes.h>

#include "vk/pipeline/safety.h"
#include "vk/pipeline/session.h"
#include "vk/pipeline/tiny.h"

int tools_check_model(const struct tools_options *options, FILE *out, struct fault *f)
{
    _cleanup_(model_freep) struct model *model = NULL;
    _cleanup_(weights_freep) struct weights *weights = NULL;
    _cleanup_(safety_freep) struct safety *safety = NULL;
    _cleanup_(tiny_freep) struct tiny *tiny = NULL;

    int r = model_open(options->model, &model, f);
    if (r >= 0)
        r = weights_open(options->model, &weights, f);
    if (r >= 0)
        r = session_declare_weights(model, weights, f);
    if (r >= 0)
        r = weights_check_files(weights, f);
    if (r >= 0)
        r = safety_open(options->model, NULL, NULL, &safety, f);
    if (r >= 0)
        r = tiny_open(options->model, &tiny, f);
    if (r < 0)
        return r;
    (void)fprintf(out,
                  options->json ? "{\"hash\": \"%s\", \"weights\": %" PRIu64 "}\n"
                                : "hash     %s\nweights  %" PRIu64 " bytes on the device\n",
                  weights_hash(weights), weights_total_bytes(weights));
    return 0;
}
