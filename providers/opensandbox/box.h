/* SPDX-License-Identifier: Apache-2.0 */
/* What the table has of a sandbox, beside what remote/ does. */
#pragma once

#include "providers/opensandbox/opensandbox.h"

extern const struct remote_ops osb_remote;

int osb_box_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret);
int osb_box_list(struct provider *p, struct call *c, struct box_sink *to);
int osb_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                   struct box **ret);
