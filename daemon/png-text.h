/* png-text — the words inside a picture file: the web UI's `parameters` text and the XMP packet.
 * Pure. */
#pragma once

#include <stdbool.h>

#include "daemon/png.h"

/* Malloc'd UTF-8, NULL when out of memory:
 *     PROMPT
 *     Negative prompt: NEGATIVE
 *     Steps: 20, Sampler: PLMS, CFG scale: 7.5, Seed: 1, Size: 512x512, Model hash: 0123456789,
 *     Model: NAME, Denoising strength: 0.8, Eta: 0.5, Clip skip: 2, RNG: NV, Lora: NAMES
 * (the last two as one line). The negative prompt is left out when there is none; of what follows
 * the model, told only with facts->options, the strength without a picture to begin with, eta but
 * for ddim, no skip, no LoRA. The web UI's Clip skip is one more than ours, its RNG is NV for cuda
 * and CPU for cpu, its samplers on Karras' sigmas end in " Karras". Line ends inside prompts become
 * LF; other control characters become blanks, and so does a line end before the words "Negative
 * prompt:", which readers would take for the real one. Values with ',' ':' or '"' are quoted as
 * JSON. */
char *png_text_parameters(const struct png_facts *facts);

/* Malloc'd XMP packet, NULL when out of memory: CreatorTool, DigitalSourceType and, with the
 * prompt, dc:description. Characters that XML 1.0 cannot hold are left out. */
char *png_text_xmp(const struct png_facts *facts, bool with_prompt);

/* Malloc'd Latin-1 text. 0; -EILSEQ when `utf8` holds a character beyond U+00FF; -ENOMEM. */
int png_text_latin1(const char *utf8, char **ret_text);
