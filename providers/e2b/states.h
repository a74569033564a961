/* SPDX-License-Identifier: Apache-2.0 */
/* What the service says of a sandbox, as states, numbers and errors of ours. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"

struct json;

/*
 *      running     running         paused      paused
 *      any other   unknown; a sandbox that isn't there has no word: the request fails with 404
 */
enum box_state e2b_state(const char *word);

/* An entry of a list, or the answer about one; what it lacks is unknown. */
void e2b_describe(const struct json *sandbox, struct box_status *ret);

/* Its text by this name; "" none. Borrowed. */
const char *e2b_metadata(const struct json *sandbox, const char *key);
#define METADATA_KEY "sbxfs-key"
#define METADATA_NAME "sbxfs-name"
#define METADATA_OWNER "sbxfs-owner"
#define METADATA_WORKDIR "sbxfs-workdir"
#define METADATA_USER "sbxfs-user"
#define METADATA_PREFIX "sbxfs-"

/* As services make them; "<id>-<client>" of old, too. */
bool e2b_is_id(const char *id);

/* Whether `version` ("0.6.13", "v0.6.13") is `least` or newer; "" unknown: it is. */
bool e2b_since(const char *version, const char *least);

/* A Connect error as -errno: by its code, or by the system's words at the end of its message. */
int e2b_error(const char *code, const char *message);

/* How a program ended, of its `end`: false when that makes no sense. */
bool e2b_end(const struct json *end, bool *ret_has_code, int *ret_code, int *ret_signal);

/* ---- what a 4xx means ---- */

/* By its sentence: the API has no such call; another variant is to be tried. */
bool e2b_is_other_variant(unsigned status, const char *sentence);
/* Positive word, of the API itself, that the sandbox isn't there: of the whole answer. */
bool e2b_is_gone(unsigned status, const char *body, size_t size);
/* By its sentence: the proxy's word, not envd's: nothing was done. */
bool e2b_is_not_there_yet(unsigned status, const char *sentence);
