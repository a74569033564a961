/* SPDX-License-Identifier: Apache-2.0 */
/* A creation, and a program to start, as the service's JSON. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "providers/provider.h"

struct buf;
struct remote_program;

#define E2B_TEMPLATE_DEFAULT "base"
#define E2B_TIMEOUT_DEFAULT_S 3600

/*
 * Refuse what can't be: -EINVAL a value, -EOPNOTSUPP what its API can't hold.
 *
 *      net = none | all | allow:HOST[,HOST...] | deny:CIDR[,CIDR...]
 */
int e2b_check(const struct spec *spec, struct call *c);

/* Seconds that the service is told, rounded up. */
uint64_t e2b_timeout_s(const struct spec *spec);

/* `has_secure`: of the older of the two calls. Holds secrets: to buf_wipe. -ENOMEM, -E2BIG. */
int e2b_create_body(const struct spec *spec, bool has_secure, struct buf *to);

/* What envd's Start takes. */
int e2b_start_body(const struct remote_program *p, struct buf *to);
