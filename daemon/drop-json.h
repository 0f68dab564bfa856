/* drop-json — what done/NAME.json says of a job. */
#pragma once

#include "daemon/job.h"
#include "vk/base/json.h"

/* State, times, resolved options, warnings, pictures with seed, size and SHA-256. NULL when out of
 * memory. */
json_t *drop_job_to_json(const struct job *job, const char *key);
