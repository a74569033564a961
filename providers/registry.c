/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/registry.h"

#include <string.h>

#include "providers/daytona/daytona.h"
#include "providers/docker/docker.h"
#include "providers/e2b/e2b.h"
#include "providers/local/local.h"
#include "providers/opensandbox/opensandbox.h"
#include "providers/ssh/ssh.h"

static const struct provider_ops *const providers[] = {
        &local_ops, &local_cached_ops, &ssh_ops,         &docker_ops,
        &e2b_ops,   &daytona_ops,      &opensandbox_ops,
};

const struct provider_ops *registry_find(const char *kind)
{
        for (size_t i = 0; i < sizeof(providers) / sizeof(providers[0]); i++) {
                if (strcmp(providers[i]->name, kind) == 0)
                        return providers[i];
        }
        return NULL;
}

const struct provider_ops *registry_at(size_t i)
{
        return i < sizeof(providers) / sizeof(providers[0]) ? providers[i] : NULL;
}
