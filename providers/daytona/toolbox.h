/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the toolbox in a sandbox, and to the proxy and the runner before it: while the
 * sandbox comes up, is stopped or gone, those answer for it; then the API is asked which.
 *
 * Threads: any.
 */
#pragma once

#include "providers/daytona/daytona.h"
#include "transport/http/http.h"

/* An endpoint for one sandbox; `url` as the service says, without the id. */
int daytona_toolbox_new(const struct daytona_provider *d, const char *id, const char *url,
                        struct call *c, struct http **ret);

/*
 * http_do, http_do_json on it. What was not the toolbox's own word is asked again for a while:
 * nothing was done. -EHOSTDOWN paused or stopped, -ENODEV gone. `ret` NULL: no JSON.
 */
int daytona_toolbox_do(struct daytona_box *b, struct call *c, struct http_request *q,
                       struct http_reply *reply, struct json **ret);

/* Of a call to it that failed so: 0, it is to be made again; else how it is to fail. */
struct again {
        uint64_t until_ns, step_ns; /* zeros before the first */
};
int daytona_toolbox_again(struct daytona_box *b, struct call *c, int r,
                          const struct http_reply *reply, struct again *a);

/* Sent with each request that isn't to keep the sandbox awake: with all of ours. */
#define DAYTONA_SKIP                                                                               \
        {                                                                                          \
                .name = "X-Daytona-Skip-Last-Activity-Update", .value = "true"                     \
        }
