/* drop-key — working/KEY: one ticket with what was dropped beside it, from the moment it leaves the
 * intake until it lies in done/ or failed/.
 *
 *     working/KEY/new/     inputs are being moved here, one by one
 *     working/KEY/d/       all are there: "new" renamed; what counts as taken up
 *     working/KEY/target   where the results go, decided once
 *
 * In the end d/ itself becomes done/NAME.d, or its files go to failed/ one by one; a KEY without
 * inputs is through and only needs removing. */
#pragma once

#include "daemon/drop-folder.h"
#include "daemon/drop-mailbox.h"

#define DROP_KEY_INPUTS_MAX 64u /* files one ticket takes along; the table of endings has 12 */

/* Moves `count` files of the intake to a new KEY, the ticket last, and makes it count as taken up.
 * On an error the others have gone back; *ret_stuck says whether it is about the last file itself
 * (-ENOENT: it has gone meanwhile) or about the folder; ret_key is "", or the KEY that could not be
 * taken away again: drop_key_look() is to do that later. Nothing is synced yet. */
int drop_key_take(struct drop_folder *folder, const char *const *names, size_t count,
                  char ret_key[DROP_KEY_SIZE], bool *ret_stuck);

struct drop_target {
    enum drop_dir where; /* done or failed */
    char base[DROP_NAME_SIZE];
    char reason[256]; /* failed: why */
};

/* 0; 1 when there is none; or an error. */
int drop_target_read(int key_directory, struct drop_target *ret_target);
int drop_target_write(int key_directory, const char *key, const struct drop_target *target);

enum drop_look {
    DROP_LOOK_TICKET,  /* one, of ret->owner; ret->was_published: it has a target in done/ */
    DROP_LOOK_REFUSED, /* ret->fault says why */
    DROP_LOOK_THROUGH, /* no inputs any more: removed */
};

/* Makes what was taken up durable and looks at what it is, without opening any of it. Inputs that
 * were still on their way when an earlier run ended go back to the intake. An enum drop_look or a
 * negative error. */
int drop_key_look(struct drop_folder *folder, struct drop_message *ret);

/* drop-read.c: opens and reads the ticket, which must belong to m->owner, and opens the pictures
 * beside it: 0 and m->text, m->ticket, m->inputs; -EAGAIN while somebody still writes the ticket;
 * -ENOTRECOVERABLE and m->fault when it is refused; or a passing error. */
int drop_key_read(struct drop_folder *folder, struct drop_message *m);

/* Names in working/KEY/d; the first is the one the results are called after. At least one
 * or -ENOENT. */
struct drop_inputs {
    char names[DROP_KEY_INPUTS_MAX][DROP_NAME_SIZE];
    size_t count;
};
int drop_key_list(int inputs_directory, struct drop_inputs *ret_inputs);

int drop_key_open(const struct drop_folder *folder, const char *key); /* working/KEY */
int drop_key_open_inputs(const struct drop_folder *folder, const char *key, int *ret_directory);
/* Of a KEY that is through. */
int drop_key_remove(struct drop_folder *folder, const char *key);
