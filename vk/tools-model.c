/* Whether a directory is a model that this engine takes, without a device: `diffused-worker
 * --check-model`. */
#include "vk/tools.h"

#include <inttypes.h>

#include "vk/pipeline/session.h"

int tools_check_model(const struct tools_options *options, FILE *out, struct fault *f)
{
    _cleanup_(model_freep) struct model *model = NULL;
    _cleanup_(weights_freep) struct weights *weights = NULL;

    int r = model_open(options->model, &model, f);
    if (r >= 0)
        r = weights_open(options->model, &weights, f);
    if (r >= 0)
        r = session_declare_weights(model, weights, f);
    if (r >= 0)
        r = weights_check_files(weights, f);
    if (r < 0)
        return r;
    (void)fprintf(out,
                  options->json ? "{\"hash\": \"%s\", \"weights\": %" PRIu64 "}\n"
                                : "hash     %s\nweights  %" PRIu64 " bytes on the device\n",
                  weights_hash(weights), weights_total_bytes(weights));
    return 0;
}
