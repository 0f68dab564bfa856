#include <string.h>

#include "tests/fuzz/fuzz.h"

extern const struct fuzz_target fuzz_safetensors, fuzz_model, fuzz_ticket, fuzz_conf, fuzz_record,
    fuzz_tokenizer, fuzz_vocab, fuzz_png, fuzz_json, fuzz_devices, fuzz_words, fuzz_picture,
    fuzz_prompt;

const struct fuzz_target *const fuzz_targets[] = {
    &fuzz_safetensors, &fuzz_model,   &fuzz_ticket, &fuzz_conf, &fuzz_record,
    &fuzz_tokenizer,   &fuzz_vocab,   &fuzz_png,    &fuzz_json, &fuzz_devices,
    &fuzz_words,       &fuzz_picture, &fuzz_prompt, NULL,
};

const struct fuzz_target *fuzz_find(const char *name)
{
    for (size_t i = 0; fuzz_targets[i]; i++)
        if (strcmp(fuzz_targets[i]->name, name) == 0)
            return fuzz_targets[i];
    return NULL;
}
