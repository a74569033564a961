/* SPDX-License-Identifier: Apache-2.0 */
/* What the service says of a sandbox, as states, numbers and errors of ours. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"

struct json;

/*
 *      creating        creating pending_build building_snapshot pulling_snapshot
 *      starting        starting restoring              running         started
 *      pausing         pausing                         paused          paused
 *      resuming        resuming                        stopping        stopping
 *      stopped         stopped archived archiving      destroying      destroying
 *      gone            destroyed; else the request for it fails with 404
 *      error           error build_failed
 *      as before       resizing snapshotting forking: both of one that runs and of one that doesn't
 *      unknown         unknown, and any other
 */
enum box_state daytona_state(const char *word, enum box_state before);

/* An entry of a list, or the answer about one; what it lacks is unknown. */
void daytona_describe(const struct json *sandbox, enum box_state before, struct box_status *ret);

/* Its text by this name; "" none. Borrowed. */
const char *daytona_label(const struct json *sandbox, const char *key);
#define LABEL_KEY "sbxfs-key"
#define LABEL_NAME "sbxfs-name"
#define LABEL_OWNER "sbxfs-owner"
#define LABEL_WORKDIR "sbxfs-workdir"
#define LABEL_PREFIX "sbxfs-"

/* As services make them. */
bool daytona_is_id(const char *id);

/* Whether it is of a class that can be paused; unknown where it doesn't say, or names a new one. */
enum daytona_pause { DAYTONA_PAUSE_UNKNOWN, DAYTONA_PAUSE_CAN, DAYTONA_PAUSE_CAN_NOT };
enum daytona_pause daytona_can_pause(const struct json *sandbox);

/* ---- what an answer means that is an error ---- */

/* The errno of a status, its sentence considered. */
int daytona_error(unsigned status, int error, const char *sentence);
/* The sentence of an error's body; "" none. `text` is not escaped. */
void daytona_sentence(const char *body, size_t size, char *text, size_t text_size);

/* Positive word, of the API itself, that the sandbox isn't there: of the whole answer. */
bool daytona_is_gone(unsigned status, const char *body, size_t size);
/* The API has no such call: an older one, or a newer. */
bool daytona_is_no_call(unsigned status, const char *body, size_t size);
/* The word of what stands before a sandbox's daemon, not the daemon's: nothing was done. */
bool daytona_is_not_there_yet(unsigned status, const char *body, size_t size);
