/* SPDX-License-Identifier: Apache-2.0 */
/* What the service says of a sandbox, as states, numbers and errors of ours. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "providers/provider.h"

struct buf;
struct json;

/*
 *      Pending, Allocated, Creating    creating        Stopping        stopping
 *      Running                         running         Terminated      stopped
 *      Pausing                         pausing         Deleting        destroying
 *      Paused                          paused          Deleted         gone
 *      Resuming                        resuming        Failed, Error   error
 *      Unknown, any other              unknown
 *
 * In any case of letters. A sandbox that isn't there has no word: the request fails with 404.
 */
enum box_state osb_state(const char *word);

/* An entry of a list, or the answer about one; what it lacks is unknown. */
void osb_describe(const struct json *sandbox, struct box_status *ret);

/* Its label; "" none. Borrowed. */
const char *osb_label(const struct json *sandbox, const char *key);
/* Of several pieces; false: there is none, or it makes no sense. */
bool osb_long_label(const struct json *sandbox, const char *key, struct buf *to);
#define LABEL_KEY "sbxfs-key"
#define LABEL_NAME "sbxfs-name"
#define LABEL_OWNER "sbxfs-owner"
#define LABEL_WORKDIR "sbxfs-workdir"
#define LABEL_USER "sbxfs-user"
#define LABEL_PREFIX "sbxfs-"

/* One segment of a path. */
bool osb_is_id(const char *id);

/* Its sentence of an error body, of either service; false: there is none. */
bool osb_sentence(const char *body, size_t size, char *ret, size_t ret_size);

/* What execd says of a failure, as -errno; `error` where that says no more. */
int osb_error(const char *body, size_t size, int error);

/* Positive word of the server itself that the sandbox isn't there. */
bool osb_is_gone(unsigned status, const char *body, size_t size);
/* Of a change whose sandbox is as it was: the deployment doesn't do this. They have many ways. */
bool osb_is_refused(unsigned status);
