/* made_picture — the sources of tests/golden/pictures.py, made here as they are made there. */
#pragma once

#include <stdint.h>

/* Malloc'd width * height * channels bytes. kind: "noise" or "edges". Ends the test on others. */
uint8_t *made_picture(const char *kind, uint32_t width, uint32_t height, uint32_t channels);
