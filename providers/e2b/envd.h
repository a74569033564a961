/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to envd, the daemon in a sandbox, and to the proxy before it, which answers 502 while
 * the sandbox comes up, is paused or gone: then the API is asked which.
 *
 * Threads: any.
 */
#pragma once

#include "providers/e2b/e2b.h"
#include "transport/http/http.h"

/* An endpoint for one sandbox, at that address. `token` NULL: none. */
int e2b_envd_new(const struct e2b_provider *e, const char *id, const char *url, const char *token,
                 struct call *c, struct http **ret);

/*
 * http_do, http_open on it, as `user` (NULL: the template's own). What the proxy refuses is asked
 * again for a while: nothing was done. -EHOSTDOWN paused, -ENODEV gone.
 */
int e2b_envd_do(struct e2b_box *b, struct call *c, const char *user, struct http_request *q,
                struct http_reply *reply);
int e2b_envd_open(struct e2b_box *b, struct call *c, const char *user, struct http_request *q,
                  const struct stream_events *events, struct stream **ret);
