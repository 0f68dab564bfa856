/* mailbox: order, the bell, and two threads that answer each other. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/mailbox.h"

#define ROUNDS 20000u

struct note {
    struct letter letter;
    unsigned number;
};

static bool rings(const struct mailbox *box)
{
    struct pollfd fd = {.fd = box->bell, .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

static void test_list(void **state)
{
    struct note notes[3] = {{.number = 1}, {.number = 2}, {.number = 3}};
    struct letters list = {0};

    (void)state;
    for (unsigned round = 0; round < 2; round++) { /* once more after it was empty */
        assert_null(letters_take(&list));
        for (size_t i = 0; i < 3; i++)
            letters_put(&list, &notes[i].letter);
        assert_int_equal(list.count, 3);
        for (size_t i = 0; i < 3; i++)
            assert_ptr_equal(letters_take(&list), &notes[i].letter);
        assert_int_equal(list.count, 0);
    }
}

static void test_bell(void **state)
{
    struct note note = {.number = 1};
    struct mailbox box;

    (void)state;
    assert_int_equal(mailbox_init(&box), 0);
    assert_false(rings(&box));
    mailbox_hush(&box); /* does not wait */
    mailbox_put(&box, &note.letter);
    assert_true(rings(&box));
    mailbox_hush(&box);
    assert_false(rings(&box));
    assert_ptr_equal(mailbox_wait(&box), &note.letter);
    assert_null(mailbox_take(&box));
    mailbox_ring(&box);
    assert_true(rings(&box));
    mailbox_done(&box);
}

struct pair {
    struct mailbox there, back;
    bool blocks_signals;
};

/* Answers each letter with itself, and ends at number 0. */
static void *answer(void *userdata)
{
    struct pair *p = userdata;
    struct note *note;
    sigset_t mask;

    (void)pthread_sigmask(SIG_SETMASK, NULL, &mask);
    p->blocks_signals = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGUSR1) == 1;
    while ((note = (struct note *)mailbox_wait(&p->there))->number)
        mailbox_put(&p->back, &note->letter);
    return NULL;
}

static void test_threads(void **state)
{
    struct note notes[8] = {0}, stop = {0};
    struct pair p = {0};
    pthread_t thread;
    sigset_t mask;

    (void)state;
    assert_int_equal(mailbox_init(&p.there), 0);
    assert_int_equal(mailbox_init(&p.back), 0);
    assert_int_equal(mailbox_thread(&thread, "answer", answer, &p), 0);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    assert_int_equal(sigismember(&mask, SIGUSR1), 0); /* here all is as before */
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct note *note = i < 8 ? &notes[i] : (struct note *)mailbox_wait(&p.back);
        assert_int_equal(note->number, i < 8 ? 0 : i - 7); /* in the order they were sent */
        note->number = i + 1;
        mailbox_put(&p.there, &note->letter);
    }
    mailbox_put(&p.there, &stop.letter);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(p.back.letters.count, 8);
    assert_true(p.blocks_signals);
    mailbox_done(&p.there);
    mailbox_done(&p.back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_bell),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
