/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of an endpoint for what lasts: it polls every stream's socket, and calls their events.
 *
 *      loop_add  ->  step, step, ...  ->  over (the end was told)  ->  gone
 *                                     ->  left (by its user)       ->
 *
 * It starts with the first stream and ends with the endpoint.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "transport/base/list.h"
#include "transport/http/http.h"
#include "transport/stream.h"

struct lasting;
struct loop;

struct lasting_ops {
        /*
         * On the thread. What to wait for: *fd (-1: nothing), *events as poll has them, and until
         * when at most.
         */
        void (*want)(struct lasting *w, int *fd, short *events, uint64_t *until_ns);
        /* Do what can be done without waiting. False: it is over, its end was told. */
        bool (*step)(struct lasting *w, short revents);
        void (*free)(struct lasting *w);
};

/* Head of each kind's struct. */
struct lasting {
        struct stream stream; /* first */
        /* fixed after init */
        const struct lasting_ops *ops;
        struct stream_events events;
        struct http *http; /* counted by the user's side */
        /* guarded by the loop's lock */
        struct list link;
        bool is_left; /* by its user: no more events */
        bool is_over;
        bool is_awake; /* to be stepped, whatever its socket says */
};

/* `w` with a reference of w->http: both are the loop's and the user's from now on. 0 or -errno. */
int loop_add(struct lasting *w);
void loop_wake(struct lasting *w);
/* The user's last word: no event once it has returned. Frees, and drops the reference. */
void loop_leave(struct lasting *w);
/* All are left. Ends and frees it; accepts NULL. */
void loop_stop(struct loop *loop);
