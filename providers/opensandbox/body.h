/* SPDX-License-Identifier: Apache-2.0 */
/* A creation as the service's JSON, and what else it is asked. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"

struct buf;
struct osb_config;

#define OSB_IMAGE_DEFAULT "python:3.12"
#define OSB_TIMEOUT_MIN_S 60

/*
 * Refuse what can't be: -EINVAL a value, -EOPNOTSUPP what its API can't hold.
 *
 *      template = POOL         of sandboxes that are ready, on Kubernetes
 *      net = none | all | allow:HOST[,HOST...] | deny:HOST[,HOST...]
 */
int osb_check(const struct spec *spec, struct call *c);

/* Seconds that the service is told, rounded up; 0: no end. */
uint64_t osb_timeout_s(const struct spec *spec);

/* Kubernetes' exact words: "1500m", "2"; "8Gi", "1536Mi", "3Ki" (bytes are rounded up to that). */
void osb_format_cpu(uint32_t milli, char ret[32]);
void osb_format_memory(uint64_t bytes, char ret[32]);

/* Holds secrets: to buf_wipe. -ENOMEM, -E2BIG. */
int osb_create_body(const struct osb_config *d, const struct spec *spec, struct buf *to);
/* {"expiresAt":"..."} */
int osb_expiry_body(uint64_t real_ns, struct buf *to);
/* What execd's command call takes; `user` NULL: its own. */
struct osb_owner {
        uint32_t uid, gid;
};
int osb_command_body(const char *command, const struct osb_owner *user, struct buf *to);
