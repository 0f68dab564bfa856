/* sha256: the vectors of FIPS 180-4 and every length around the block edges, fed in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vk/base/sha256.h"

static void test_vectors(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[SHA256_HEX_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sha256_hex(rows[i].text, strlen(rows[i].text), hex);
        assert_string_equal(hex, rows[i].want);
    }
}

static void test_million(void **state)
{
    struct sha256 s;
    uint8_t digest[SHA256_SIZE];
    char piece[1000], hex[SHA256_HEX_SIZE];

    (void)state;
    memset(piece, 'a', sizeof piece);
    sha256_init(&s);
    for (int i = 0; i < 1000; i++)
        sha256_feed(&s, piece, sizeof piece);
    sha256_finish(&s, digest);
    sha256_format(digest, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void test_pieces(void **state)
{
    uint8_t data[200], one[SHA256_SIZE], two[SHA256_SIZE];
    struct sha256 a, b;

    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        sha256_init(&a);
        sha256_feed(&a, data, n);
        sha256_finish(&a, one);
        sha256_init(&b);
        for (size_t i = 0; i < n; i++)
            sha256_feed(&b, data + i, 1);
        sha256_finish(&b, two);
        assert_memory_equal(one, two, sizeof one);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_million),
        cmocka_unit_test(test_pieces),
    };

    return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
