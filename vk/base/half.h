/* half — IEEE binary16 and bfloat16 <-> binary32 on the CPU, rounded to nearest, ties to even. */
#pragma once

#include <stdint.h>

float half_to_float(uint16_t h);
uint16_t half_from_float(float x); /* overflow becomes infinity, NaN stays NaN */
float bfloat_to_float(uint16_t b);
