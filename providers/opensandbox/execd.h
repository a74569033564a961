/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to execd, the daemon in a sandbox. Its address is the server's to say, and another after
 * a resume on Kubernetes: it is asked for anew when no connection comes about, once a second at
 * most. While the answer is the same, so is the endpoint, with what is known of its silence. It
 * never gets the account's key, unless the way there goes through the server itself.
 *
 * Threads: any.
 */
#pragma once

#include "providers/opensandbox/opensandbox.h"
#include "transport/http/http.h"

/* *ret to http_unref. -EHOSTDOWN paused, -ENODEV gone. */
int osb_execd(struct osb_box *b, struct call *c, struct http **ret);
/* Its address is to be asked for anew. */
void osb_execd_forget(struct osb_box *b);
/* Until it answers; -EHOSTDOWN, -EIO: the sandbox doesn't run. */
int osb_execd_wait(struct osb_box *b, struct call *c);

/* http_do on it. Repeat: once with a new address, where certainly nothing was sent. */
int osb_execd_do(struct osb_box *b, struct call *c, const struct http_request *q,
                 struct http_reply *reply);
/*
 * A file, whose directory it makes. It truncates and isn't atomic, hence names of their own. What
 * is in `to` must be UTF-8, without "$".
 */
int osb_execd_upload(struct osb_box *b, struct call *c, const char *to, struct http_source *from);
/* Of a regular file. */
int osb_execd_download(struct osb_box *b, struct call *c, const char *from,
                       const struct http_range *range, struct http_sink *sink);
/* What a failure means: paused, gone, or as it was. */
int osb_execd_why(struct osb_box *b, struct call *c, int r);
