/* record — a job as JSON text: request.json (what was asked) and result.json (how it ended). No
 * I/O.
 *
 *     {"sha256": "64 hex digits",     always the first line, exactly so
 *      …}                             the sum is of every byte after that line
 *
 * request.json  format, id, owner, created_usec, deadline_uptime_usec, origin, resolved, request:
 *               {row: value, …}, inputs: {"image" | "mask": {file, bytes, sha256}}
 * result.json   format, state, started_usec, finished_usec, finished_uptime_usec, error: [word,
 *               message], warnings: […], pictures: [{bytes, sha256, and result-json.h's}, …]
 * Parsing is as strict as for foreign text: a file in the spool may be damaged. */
#pragma once

#include <stddef.h>

#include "daemon/job.h"

#define RECORD_FORMAT   2
#define RECORD_SIZE_MAX (4u << 20) /* bytes; two lists of prompts of 256 KiB, escaped, and more */

/* malloc'd text that ends in a newline, or -ENOMEM. */
int record_format_request(const struct job *job, char **ret_text);
int record_format_result(const struct job *job, enum job_state state, char **ret_text);

/* Fill a new job. -EINVAL with the reason; `job` may be half filled then. */
int record_parse_request(const char *text, size_t length, struct job *job, struct fault *f);
/* The state the record ends with must be `state`: the directory it lies in. */
int record_parse_result(const char *text, size_t length, enum job_state state, struct job *job,
                        struct fault *f);
