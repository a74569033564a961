/* SPDX-License-Identifier: Apache-2.0 */
/* How long one request may take: its call's deadline, all of it, and silence. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct call;
struct http_request;

struct limits {
        uint64_t all_ns; /* when all tries end */
        uint64_t end_ns; /* the earlier of that and the call's deadline, which may move */
        uint64_t silence_ns; /* span */
        uint64_t moved; /* bytes when it last looked */
        uint64_t moved_ns; /* when that changed */
};

void limits_init(struct limits *l, const struct http_request *q, const struct call *c);
/* A new try begins: the silence starts anew. */
void limits_restart(struct limits *l);
/*
 * `moved` bytes until now; `is_ours`: the pause is our own. 0, -ETIMEDOUT (*ret_is_silent: nothing
 * moved), -EINTR.
 */
int limits_check(struct limits *l, const struct call *c, uint64_t moved, bool is_ours,
                 bool *ret_is_silent);
/* How long to sleep at most, for poll: it ends when one is reached, or to look for a cancel. */
int limits_poll_ms(const struct limits *l, bool is_ours);
