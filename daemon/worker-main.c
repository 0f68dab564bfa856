/* diffused-worker — the process that owns the device. See ipc.h for --serve; --probe, --bench,
 * --explain, --check-model answer on standard output and need no daemon. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/decode.h"
#include "daemon/ipc.h"
#include "daemon/serve.h"
#include "vk/base/version.h"
#include "vk/engine.h"
#include "vk/tools.h"

enum verb {
    VERB_NONE,
    VERB_SERVE,
    VERB_PROBE,
    VERB_BENCH,
    VERB_EXPLAIN,
    VERB_DECODE,
    VERB_CHECK_MODEL,
    VERB_CONTEXT,
    VERB_HELP,
    VERB_VERSION,
};

struct arguments {
    enum verb verb;
    struct tools_options tools; /* model, device, allow_cpu are serve's too */
    const char *cache, *loras;
    enum png_metadata metadata;
    bool strict_weights;
};

static const char help[] =
    "usage: diffused-worker --probe [--json]\n"
    "       diffused-worker --bench [--model DIR] [--device D] [--json]\n"
    "       diffused-worker --explain --model DIR [--width W] [--height H] [--device D] [--json]\n"
    "       diffused-worker --check-model --model DIR [--json]\n"
    "       diffused-worker --decode < PNG > RGB     started by diffused\n"
    "       diffused-worker --context --model DIR    started by diffused\n"
    "       diffused-worker --serve --model DIR …    started by diffused\n"
    "\n"
    "  --device D                render node, PCI id (0000:01:00.0) or index; default: the best\n"
    "  --allow-cpu auto|yes|no   a device that is no GPU; auto: if nothing else exists\n"
    "  --cache DIR               where compiled pipelines are kept\n"
    "  --loras DIR               LoRAs that a request may name; default: the model's own\n"
    "  --png-metadata full|provenance|none\n"
    "  --strict-weights          refuse weights that others than root and this user may write\n";

/* Values of getopt_long() past any character. */
enum option_id {
    OPTION_MODEL = 256,
    OPTION_DEVICE,
    OPTION_ALLOW_CPU,
    OPTION_CACHE,
    OPTION_METADATA,
    OPTION_STRICT,
    OPTION_LORAS,
    OPTION_WIDTH,
    OPTION_HEIGHT,
    OPTION_JSON,
    OPTION_VERB, /* + enum verb; last */
};

static const struct option options[] = {
    {"serve", no_argument, NULL, OPTION_VERB + VERB_SERVE},
    {"probe", no_argument, NULL, OPTION_VERB + VERB_PROBE},
    {"bench", no_argument, NULL, OPTION_VERB + VERB_BENCH},
    {"explain", no_argument, NULL, OPTION_VERB + VERB_EXPLAIN},
    {"decode", no_argument, NULL, OPTION_VERB + VERB_DECODE},
    {"check-model", no_argument, NULL, OPTION_VERB + VERB_CHECK_MODEL},
    {"context", no_argument, NULL, OPTION_VERB + VERB_CONTEXT},
    {"help", no_argument, NULL, OPTION_VERB + VERB_HELP},
    {"version", no_argument, NULL, OPTION_VERB + VERB_VERSION},
    {"model", required_argument, NULL, OPTION_MODEL},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"allow-cpu", required_argument, NULL, OPTION_ALLOW_CPU},
    {"cache", required_argument, NULL, OPTION_CACHE},
    {"png-metadata", required_argument, NULL, OPTION_METADATA},
    {"strict-weights", no_argument, NULL, OPTION_STRICT},
    {"loras", required_argument, NULL, OPTION_LORAS},
    {"width", required_argument, NULL, OPTION_WIDTH},
    {"height", required_argument, NULL, OPTION_HEIGHT},
    {"json", no_argument, NULL, OPTION_JSON},
    {0},
};

static int parse_allow_cpu(const char *text, enum engine_allow_cpu *ret_allow)
{
    static const char *const words[] = {
        [ENGINE_ALLOW_CPU_AUTO] = "auto",
        [ENGINE_ALLOW_CPU_YES] = "yes",
        [ENGINE_ALLOW_CPU_NO] = "no",
    };

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret_allow = (enum engine_allow_cpu)i;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_pixels(const char *text, uint32_t *ret_pixels)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || n > UINT16_MAX)
        return -EINVAL;
    *ret_pixels = (uint32_t)n;
    return 0;
}

static int set_argument(struct arguments *a, int option)
{
    switch (option) {
    case OPTION_MODEL:
        a->tools.model = optarg;
        return 0;
    case OPTION_DEVICE:
        a->tools.device = optarg;
        return 0;
    case OPTION_CACHE:
        a->cache = optarg;
        return 0;
    case OPTION_LORAS:
        a->loras = optarg;
        return 0;
    case OPTION_JSON:
        a->tools.json = true;
        return 0;
    case OPTION_STRICT:
        a->strict_weights = true;
        return 0;
    case OPTION_ALLOW_CPU:
        return parse_allow_cpu(optarg, &a->tools.allow_cpu);
    case OPTION_METADATA:
        return png_metadata_from_string(optarg, &a->metadata);
    case OPTION_WIDTH:
        return parse_pixels(optarg, &a->tools.width);
    case OPTION_HEIGHT:
        return parse_pixels(optarg, &a->tools.height);
    default:
        if (a->verb != VERB_NONE)
            return -EINVAL;
        a->verb = (enum verb)(option - OPTION_VERB);
        return 0;
    }
}

/* Says itself what is wrong. */
static int parse_arguments(int argc, char **argv, struct arguments *a)
{
    int option, index = 0;

    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?')
            return -EINVAL;
        if (set_argument(a, option) < 0) {
            (void)fprintf(stderr, "diffused-worker: --%s %s: not a legal value, or a second verb\n",
                          options[index].name, optarg ? optarg : "");
            return -EINVAL;
        }
    }
    bool needs_model = a->verb == VERB_SERVE || a->verb == VERB_EXPLAIN ||
                       a->verb == VERB_CHECK_MODEL || a->verb == VERB_CONTEXT;
    if (optind < argc || a->verb == VERB_NONE || (needs_model && !a->tools.model)) {
        (void)fprintf(stderr, "diffused-worker: %s; see --help\n",
                      optind < argc ? "takes no plain arguments"
                      : needs_model ? "--model DIR is missing"
                                    : "which verb?");
        return -EINVAL;
    }
    return 0;
}

/* What requests are checked against before the model is loaded, or why it cannot be. */
static int tell_context(const char *model)
{
    struct ipc_context_answer answer;
    struct request_context context = {0};
    struct fault f = {0};

    memset(&answer, 0, sizeof answer); /* padding too: it crosses a process boundary */
    answer.err = engine_read_context(model, &context, &f);
    ipc_model_from_context(&context, &answer.model);
    if (answer.err < 0)
        (void)snprintf(answer.text, sizeof answer.text, "%.251s",
                       f.text[0] ? f.text : strerror(-answer.err));
    return fwrite(&answer, sizeof answer, 1, stdout) == 1 ? 0 : -EIO;
}

static enum ipc_exit answer(const struct arguments *a)
{
    struct fault f = {0};
    int r = a->verb == VERB_PROBE         ? tools_probe(stdout, a->tools.json, &f)
            : a->verb == VERB_DECODE      ? decode_to(STDIN_FILENO, stdout, &f)
            : a->verb == VERB_BENCH       ? tools_bench(&a->tools, stdout, &f)
            : a->verb == VERB_CONTEXT     ? tell_context(a->tools.model)
            : a->verb == VERB_CHECK_MODEL ? tools_check_model(&a->tools, stdout, &f)
                                          : tools_explain(&a->tools, stdout, &f);

    if (r == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        r = fault_set(&f, -EIO, "standard output: %s", strerror(errno));
    if (r == 0)
        return IPC_EXIT_OK;
    (void)fprintf(stderr, "diffused-worker: %s\n", f.text[0] ? f.text : strerror(-r));
    return IPC_EXIT_FAILED;
}

int main(int argc, char **argv)
{
    struct arguments a = {.verb = VERB_NONE};

    if (parse_arguments(argc, argv, &a) < 0)
        return IPC_EXIT_USAGE;
    switch (a.verb) {
    case VERB_SERVE:
        return (int)serve(IPC_WORKER_FD,
                          &(struct serve_options){.model = a.tools.model,
                                                  .device = a.tools.device,
                                                  .cache = a.cache,
                                                  .loras = a.loras,
                                                  .allow_cpu = a.tools.allow_cpu,
                                                  .metadata = a.metadata,
                                                  .strict_weights = a.strict_weights});
    case VERB_HELP:
        return fputs(help, stdout) < 0;
    case VERB_VERSION:
        return puts("diffused-worker " DIFFUSED_VERSION) < 0;
    default:
        return (int)answer(&a);
    }
}
