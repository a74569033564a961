/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API: requests below its address, all answered with JSON.
 *
 * Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "providers/daytona/daytona.h"
#include "transport/base/buf.h"
#include "transport/http/http.h"

struct json;

int daytona_api_new(const struct daytona_config *config, const char *name, struct call *c,
                    struct http **ret);

/* Borrowed for the call. */
struct api_ask {
        const char *method; /* NULL: GET */
        const char *path; /* url.h; below the API's address */
        const struct buf *body; /* NULL: none */
        bool is_slow; /* answered within half a minute, and a little */
        bool is_idempotent;
        unsigned accepts[2]; /* statuses that are no error either; 0 none */
};

/* As http_do_json; *ret may be NULL: the answer was empty. */
int daytona_ask(struct daytona_provider *d, struct call *c, const struct api_ask *ask,
                struct http_reply *reply, struct json **ret);

/*
 * "/sandbox/ID" and `rest` of a sandbox. -ENODEV when the API itself says that it isn't there;
 * else as daytona_ask.
 */
int daytona_ask_box(struct daytona_box *b, struct call *c, const char *rest, struct api_ask *ask,
                    struct http_reply *reply, struct json **ret);

/* What the API and the toolbox say of an error; for http_config. */
int daytona_explain(const struct http_reply *reply, int error, char *text, size_t size);
