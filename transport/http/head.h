/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of an answer, and the body of a refused one, for the connection that leaves HTTP: there
 * libcurl only connects. Pure; what it reads is hostile.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct http_reply;

/*
 * Read a whole head (status line and headers, with the empty line) from the start of `data` into
 * the reply; *ret_size is its length. -EAGAIN: it isn't whole yet; -EPROTO; -ENOMEM. An answer 1xx
 * other than 101 isn't the last one: read the next.
 */
int head_parse(const char *data, size_t size, struct http_reply *reply, size_t *ret_size);

/*
 * `data` is what has come behind a head, `is_last` that nothing follows. True: the body is whole,
 * or as much of it as is kept, and in reply->body.
 */
bool head_take_body(const char *data, size_t size, bool is_last, struct http_reply *reply);
