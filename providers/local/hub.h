/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread that waits for all sockets and processes of a provider, and calls whom they belong to.
 * Idle, it sleeps.
 *
 * Threads: hub_add, hub_watch and hub_remove from any thread; `ready` is called on the hub's, one
 *          at a time, holding no lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct hub;

/* A member of whoever waits. Zero-initialised before the first use. */
struct hub_source {
        void (*ready)(struct hub_source *s, uint32_t events); /* EPOLLIN and the like */
        int fd; /* borrowed */
};

int hub_new(struct hub **ret);
void hub_free(struct hub *h); /* accepts NULL; all sources were removed */

int hub_add(struct hub *h, struct hub_source *s, uint32_t events); /* 0 or -errno */
void hub_watch(struct hub *h, struct hub_source *s, uint32_t events); /* of one that was added */

/* When it returns, `ready` of this source is not running (unless it calls), nor will it again. */
void hub_remove(struct hub *h, struct hub_source *s);

/* When it returns, what the hub was doing is done. Not on the hub's thread. */
void hub_sync(struct hub *h);

bool hub_is_self(const struct hub *h); /* on the hub's thread */
char *hub_scratch(struct hub *h); /* HUB_SCRATCH bytes for whom it calls, until that returns */
#define HUB_SCRATCH (256u << 10)
