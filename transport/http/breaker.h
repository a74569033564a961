/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an endpoint is worth asking. Two silences in a row open the breaker; then a probe, with
 * back-off, is the only request that goes out, and its answer, any answer, closes it.
 *
 * Threads: any. The probe runs on a thread of its own, while the breaker is open.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "transport/base/call.h"
#include "transport/base/lock.h"

struct breaker {
        /* fixed after init */
        int (*probe)(void *ctx, struct call *c); /* 0: something answered */
        void *ctx;
        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        unsigned silences; /* in a row */
        bool is_open;
        bool is_probing; /* the thread is there */
        bool is_stopping;
        struct call *call; /* the probe's, while it asks */
        char sentence[256];
};

void breaker_init(struct breaker *b, int (*probe)(void *ctx, struct call *c), void *ctx);
void breaker_stop(struct breaker *b); /* waits for the probe's end; nothing starts it again */
void breaker_done(struct breaker *b);

/* 0, or -EHOSTUNREACH with the reason. */
int breaker_check(struct breaker *b, char *sentence, size_t size);
void breaker_answered(struct breaker *b);
void breaker_silent(struct breaker *b, const char *sentence);
