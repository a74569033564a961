/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share of a sandbox. */
#pragma once

#include "providers/e2b/e2b.h"

struct http;
struct json;

extern const struct remote_ops e2b_remote;

int e2b_box_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret);
int e2b_box_list(struct provider *p, struct call *c, struct box_sink *to);
int e2b_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                   struct box **ret);

/* An answer about it: its token, its address, its daemon's version. -EPROTO, -ENOMEM. */
int box_learn(struct e2b_box *b, struct call *c, const struct json *sandbox);
/*
 * Its daemon, a reference; asks the API the first time. Another may take its place when the API
 * says that it is elsewhere. -EHOSTDOWN: it is paused, and nobody knows yet where it will be.
 */
int box_endpoint(struct e2b_box *b, struct call *c, struct http **ret);
/* The version of its daemon; "" unknown. */
void box_version(struct e2b_box *b, char ret[32]);
