/* request-private — what the files of request.h share. */
#pragma once

#include "vk/pipeline/request.h"

/* Decimal notation only, in the C locale whatever the process's is. 0, or -EINVAL. */
int request_parse_double(const char *text, double *ret_value);

bool request_is_utf8(const char *text, size_t length);

/* Sets a field of type char *, after checking the row's limit, NUL and UTF-8. */
int request_set_string(struct request *q, const struct request_row *row, const char *text,
                       size_t length, struct fault *f);

/* A ticket's notation of a list: a JSON array, or texts between bars; empty: none. */
int request_set_list_text(struct request *q, const struct request_row *row, const char *text,
                          size_t length, struct fault *f);

/* Texts in a JSON array of ours; 0 for NULL. */
size_t request_list_count(const char *text);
