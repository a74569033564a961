/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine says of a container, as states and sentences of ours. Pure. */
#pragma once

#include "providers/provider.h"

struct docker_facts;
struct json;

/*
 *      created     stopped, never started      paused      paused
 *      running     running                     exited      stopped
 *      restarting  starting                    dead        error: it could not be removed
 *      removing    destroying                  any other   unknown
 */
enum box_state docker_state(const char *word);

/*
 * The answer to "inspect"; what it lacks is unknown. `has_oom`: a process of it was killed for memory
 * while it ran.
 */
void docker_describe(const struct json *inspect, bool has_oom, struct box_status *ret);

/* `owner`: whose program of ours counts. *ret to facts_free. -EPROTO, -ENOMEM. */
int facts_of(const struct json *inspect, const char *owner, struct docker_facts **ret);
void facts_free(struct docker_facts *f); /* accepts NULL */

/* Labels of ours. */
#define LABEL_PREFIX "org.sbxfs."
#define LABEL_KEY LABEL_PREFIX "key"
#define LABEL_NAME LABEL_PREFIX "name"
#define LABEL_OWNER LABEL_PREFIX "owner"
#define LABEL_WORKDIR LABEL_PREFIX "workdir"
#define LABEL_USER LABEL_PREFIX "user"

/* A label of an answer to "inspect" or of a list's entry; NULL: it hasn't. */
const char *docker_label(const struct json *labels, const char *key);
