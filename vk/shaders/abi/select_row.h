/* select_row.h — constants of select_row.comp. Included by C and GLSL. */
#ifndef ABI_SELECT_ROW_H
#define ABI_SELECT_ROW_H

#define SELECT_ROW_SPEC_LX    0 /* lanes */
#define SELECT_ROW_SPEC_COUNT 1

#define SELECT_ROW_PUSH_V     4 /* uvec4 per row */
#define SELECT_ROW_PUSH_COUNT 5

#endif
