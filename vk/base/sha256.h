/* sha256 — FIPS 180-4 SHA-256 of bytes fed in pieces.
 *
 *     struct sha256 s;
 *     sha256_init(&s);
 *     sha256_feed(&s, data, size);
 *     sha256_finish(&s, digest);       the state must be initialised again before reuse */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE     32
#define SHA256_HEX_SIZE 65 /* with the NUL */

struct sha256 {
    uint32_t hash[8];
    uint64_t length; /* bytes fed */
    uint8_t block[64];
};

void sha256_init(struct sha256 *s);
void sha256_feed(struct sha256 *s, const void *data, size_t size);
void sha256_finish(struct sha256 *s, uint8_t ret_digest[SHA256_SIZE]);

/* Lower-case hex. */
void sha256_format(const uint8_t digest[SHA256_SIZE], char ret_text[SHA256_HEX_SIZE]);

/* All of it in one call. */
void sha256_hex(const void *data, size_t size, char ret_text[SHA256_HEX_SIZE]);
