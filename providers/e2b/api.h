/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane: requests, and which of its variants is there (the API has an older and a newer
 * call for creation, and three for resuming).
 *
 * Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "providers/e2b/e2b.h"
#include "transport/base/buf.h"
#include "transport/http/http.h"

struct json;

int e2b_api_new(const struct e2b_config *config, const char *name, struct call *c,
                struct http **ret);

/* Borrowed for the call. */
struct api_ask {
        const char *method; /* NULL: GET */
        const char *path; /* url.h; below the API's address */
        const struct buf *body; /* NULL: none, or {} where the method has one */
        bool is_slow; /* creates, pauses, resumes: answered when that is done */
        bool is_idempotent;
        unsigned accepts; /* a status that is no error either; 0 none */
};

/* As http_do_json; `ret` may be NULL. */
int e2b_api_ask(struct e2b_provider *e, struct call *c, const struct api_ask *ask,
                struct http_reply *reply, struct json **ret);

/*
 * "/sandboxes/ID" and `rest` of a sandbox. -ENODEV when the API itself says that it isn't there;
 * else as e2b_api_ask.
 */
int e2b_api_ask_box(struct e2b_box *b, struct call *c, const char *rest, struct api_ask *ask,
                    struct http_reply *reply, struct json **ret);

/* Create, by the variant that there is; *ret_was_sent even of a failure, http.h. */
int e2b_api_create(struct e2b_provider *e, struct call *c, const struct spec *spec,
                   bool *ret_was_sent, struct json **ret);
/* Resume, likewise; also of what runs. *ret may be NULL. */
int e2b_api_resume(struct e2b_box *b, struct call *c, uint64_t timeout_s, struct json **ret);
