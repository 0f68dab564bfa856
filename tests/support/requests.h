/* requests — requests as the manager sends them to a worker: every row has its value. */
#pragma once

#include "vk/pipeline/request.h"

/* Fields that are not zero count as given, seed always; the rest comes from the table and a
 * model of 64 x 64 pixels with PNDM and without a safety checker. What it adds needs no freeing.
 * */
void requests_complete(struct request *q);
