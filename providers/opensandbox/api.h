/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the lifecycle server. Threads: any. */
#pragma once

#include <stdbool.h>

#include "providers/opensandbox/opensandbox.h"
#include "transport/base/buf.h"
#include "transport/http/http.h"

struct json;

int osb_api_new(const struct osb_config *config, const char *name, struct call *c,
                struct http **ret);

/* Borrowed for the call. */
struct osb_ask {
        const char *method; /* NULL: GET */
        const char *path; /* url.h; below the API's address */
        const struct buf *body; /* NULL: none */
        bool is_slow; /* answered when it is done: images are pulled, containers stopped */
        bool is_idempotent;
};

/* As http_do_json; `ret` may be NULL. */
int osb_api_ask(struct osb_provider *p, struct call *c, const struct osb_ask *ask,
                struct http_reply *reply, struct json **ret);

/*
 * "/sandboxes/ID" and `rest` of a sandbox. -ENODEV when the server itself says that it isn't there;
 * else as osb_api_ask.
 */
int osb_api_ask_box(struct osb_box *b, struct call *c, const char *rest, struct osb_ask *ask,
                    struct http_reply *reply, struct json **ret);
