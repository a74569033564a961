/* SPDX-License-Identifier: Apache-2.0 */
/* Images: what one says, and getting one that isn't there. */
#pragma once

#include "providers/docker/body.h"

struct docker_provider;

/**
 * What the image of a spec says; pulled when the engine hasn't it, which is told as the phase.
 *
 * Errors: -ENOENT it isn't there and can't be had: the sentence says how to get it; else as a
 *         request.
 * Repeat: always.
 */
int image_get(struct docker_provider *d, struct call *c, const struct spec *spec,
              struct image_facts *ret);

/* ---- the lines that a pull answers; pure ---- */

#define PULL_LAYERS_MAX 64 /* more are pulled, but not counted */

struct pull {
        struct {
                char id[16];
                uint64_t current, total;
        } layers[PULL_LAYERS_MAX];
        unsigned count;
        char status[80]; /* the latest line's */
        char error[256]; /* "" none */
};

/* One line of the answer; what is none is passed over. */
void pull_line(struct pull *p, const char *line, size_t size);
/* "pulling python:3.12: 12 of 50 MiB". */
void pull_phase(const struct pull *p, const char *image, char *ret, size_t size);
