/* drop-publish — the end of a ticket: pictures and JSON into done/, or its inputs into failed/ with
 * the reason. Each can be cut off at any point and called again with the same KEY: names are
 * decided once, in working/KEY/target, and what is there under them already is not made twice. */
#pragma once

#include "daemon/drop-key.h"

/* Copies m's pictures and writes m's JSON, in this order, then moves the inputs. 0; -ENOENT when
 * there is no such KEY; -EBADMSG and m->fault when a picture is not what its SHA-256 says; a
 * passing error otherwise. */
int drop_publish_done(struct drop_folder *folder, struct drop_message *m);

/* For a KEY whose results an earlier run has written in full, when its job is gone. 1 when they are
 * not all there. */
int drop_publish_rest(struct drop_folder *folder, const char *key);

/* Writes m->fault's text and moves the inputs. 0 or an error. */
int drop_publish_failed(struct drop_folder *folder, const struct drop_message *m);
