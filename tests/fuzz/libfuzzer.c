/* libFuzzer's entry points. There is one program for all targets: it is called by the target's name
 * (BUILD/fuzz/NAME). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static const struct fuzz_target *target;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *slash = strrchr((*argv)[0], '/');
    const char *name = slash ? slash + 1 : (*argv)[0];

    (void)argc;
    target = fuzz_find(name);
    if (!target) {
        (void)fprintf(stderr, "%s: no target of this name; there are:\n", name);
        for (size_t i = 0; fuzz_targets[i]; i++)
            (void)fprintf(stderr, "%s\n", fuzz_targets[i]->name);
        exit(2);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= target->max_size)
        target->run(data, size);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size_t most = max_size < target->max_size ? max_size : target->max_size;

    return fuzz_mutate(target, data, size < most ? size : most, most, seed, LLVMFuzzerMutate);
}
