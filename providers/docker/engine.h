/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's API: requests with a version in their path that both sides speak, their answers as
 * JSON, its errors as ours.
 *
 * Threads: any. Two endpoints of one address: `calls`, and `streams` for what commands print and
 *          events tell, so that their reader serves nobody else.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "transport/base/buf.h"
#include "transport/http/http.h"

struct docker_config;
struct docker_engine;
struct json;

/* Local work only. -EINVAL, -EPERM plain http to another machine, -ENOMEM. */
int engine_new(const struct docker_config *config, const char *name, struct call *c,
               struct docker_engine **ret);
void engine_free(struct docker_engine *e); /* accepts NULL; its streams were closed before */

struct http *engine_calls(struct docker_engine *e); /* borrowed */
struct http *engine_streams(struct docker_engine *e);

/*
 * What stands before each path: "/v1.41"; asked for the first time. -EPROTO it is no engine, or one
 * that is too old.
 */
int engine_prefix(struct docker_engine *e, struct call *c, char ret[16]);

/*
 * Whether programs built for this machine run there. -EOPNOTSUPP they don't, with the sentence.
 * Asked once.
 */
int engine_check_arch(struct docker_engine *e, struct call *c);

/* Borrowed for the call. */
struct engine_ask {
        const char *method; /* NULL: GET */
        const struct buf *path; /* behind the version; url.h */
        const char *data; /* JSON, or with a type; NULL: none */
        size_t size;
        const char *type;
        unsigned accepts[3]; /* statuses that are no error either */
        bool is_slow; /* silent for as long as it takes: only the call's deadline counts */
        bool is_idempotent;
};

/* As http_do. *ret to json_free, NULL where there is no body; ret may be NULL. */
int engine_ask(struct docker_engine *e, struct call *c, const struct engine_ask *ask,
               struct http_reply *reply, struct json **ret);
