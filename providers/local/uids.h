/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host uids of sandboxes when root mounts: one each, from a range, unique among the sandboxes of
 * this state directory. The search for a free one starts at a place that depends on the sandbox's
 * key, so that two mounts rarely meet.
 *
 * Threads: any.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct call;
struct uids;

#define UIDS_DEFAULT "2000000000:65536"

/* "FIRST:COUNT". -EINVAL with a sentence; -ENOMEM. */
int uids_new(const char *range, struct call *c, struct uids **ret);
void uids_free(struct uids *u); /* accepts NULL */

int uids_take(struct uids *u, const char *key, uid_t *ret); /* -EDQUOT: the range is used up */
int uids_claim(struct uids *u, uid_t uid); /* one that is on disk; 0 or -ENOMEM */
void uids_give(struct uids *u, uid_t uid); /* back */
