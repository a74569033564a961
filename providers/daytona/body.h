/* SPDX-License-Identifier: Apache-2.0 */
/* A creation as the service's JSON. Pure. */
#pragma once

#include <stdint.h>

#include "providers/provider.h"

struct buf;

#define DAYTONA_TIMEOUT_DEFAULT_S 3600

/*
 * Refuse what can't be: -EINVAL a value, -EOPNOTSUPP what its API can't hold.
 *
 *      image = NAME            built from it; then cpu, memory, disk can be said, too
 *      snapshot = NAME         else the organization's default one
 *      net = none | all | allow:WHAT[,WHAT...]         WHAT: CIDR, or a domain
 */
int daytona_check(const struct spec *spec, struct call *c);

/* What the service is told: whole minutes, rounded up. */
uint32_t daytona_timeout_min(const struct spec *spec);

/* Its name in the organization, which is unique. */
#define DAYTONA_NAME_SIZE 48
void daytona_name(const struct spec *spec, char ret[DAYTONA_NAME_SIZE]);

/* `target` NULL: the organization's own. Holds secrets: to buf_wipe. -ENOMEM, -E2BIG. */
int daytona_create_body(const struct spec *spec, const char *target, struct buf *to);
