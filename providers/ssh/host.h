/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hosts of a provider: one for each place that some sandbox, or the section, names. One that
 * nobody uses for a minute is closed. Each that sandboxes were made on has a record `host-<id>` in
 * the state directory: the next run of ours asks there what it left.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "transport/base/call.h"

struct sftp;
struct ssh_config;
struct ssh_host;
struct ssh_provider;

#define HOST_RECORD "host-"

/* The host of a config, made if it isn't there; counted. -ENOMEM. */
int host_get(struct ssh_provider *ssh, const struct ssh_config *config, struct ssh_host **ret);
/* By the id in a sandbox's: the section's, one in use, or of a record. -ENOENT. */
int host_find(struct ssh_provider *ssh, const char *id, struct ssh_host **ret);
/* All that a list must ask: an array of `count` references, to unref and free. */
int host_all(struct ssh_provider *ssh, struct ssh_host ***ret, size_t *ret_count);

/* As people call it. */
const char *host_name(const struct ssh_host *h);

/* Write its record, before anything is made there: a host without one has nothing of ours. -errno. */
int host_record(struct ssh_host *h, struct call *c);
/* No sandbox of ours is there: its record goes, unless somebody uses it. */
void host_forget(struct ssh_host *h);

/*
 * A new connection: where the home is, and what there is, as program_probe said it; -EAGAIN: that
 * stays as it was. On a dial's thread.
 */
int host_learn(struct ssh_host *h, struct sftp *sftp, int can, struct call *c);
/* It answers again: its sandboxes are to be asked. On a dial's thread. */
void host_is_back(struct ssh_host *h);

/* The keeper's work; and the end of all, when no sandbox is left. */
void hosts_tend(struct ssh_provider *ssh);
void hosts_free(struct ssh_provider *ssh);
