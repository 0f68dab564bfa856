/* embed.h — constants of embed.comp. Included by C and GLSL. */
#ifndef ABI_EMBED_H
#define ABI_EMBED_H

#define EMBED_SPEC_LX    0 /* lanes */
#define EMBED_SPEC_COUNT 1

#define EMBED_PUSH_ROWS   4
#define EMBED_PUSH_V      5 /* uvec4 per row */
#define EMBED_PUSH_LENGTH 6 /* rows of a text */
#define EMBED_PUSH_WORDS  7 /* ids from here on are rows of the words */
#define EMBED_PUSH_COUNT  8

#endif
