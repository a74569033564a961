/* SPDX-License-Identifier: Apache-2.0 */
/* A spec as the engine's JSON, and what of a spec can't be. Pure. */
#pragma once

#include "providers/provider.h"

struct buf;

/* What an image says; "" nothing. */
struct image_facts {
        char workdir[4096];
        char user[256];
};

/* What this service can't hold: -EINVAL, -EOPNOTSUPP, -EPERM with the sentence. */
int body_check(const struct spec *spec, unsigned allow, struct call *c);

/* The image: the spec's, or the default. */
const char *body_image(const struct spec *spec);

/*
 * Where commands start: workdir=, the image's own, or DOCKER_WORKDIR; never "/". And as whom: "" is
 * root.
 */
const char *body_workdir(const struct spec *spec, const struct image_facts *image);
const char *body_user(const struct spec *spec, const struct image_facts *image);

/*
 * The body of "create a container"; `by_shell`: its shell serves the files. May hold secrets: wipe
 * it. -ENOMEM, -E2BIG.
 */
int body_of(const struct spec *spec, const struct image_facts *image, bool by_shell,
            struct buf *to);

/*
 * An image's name in parts: "python:3.12" is "python" and "3.12"; a digest is a tag of its own;
 * nothing is "latest". False: this is no name of an image.
 */
bool image_split(const char *image, char *name, char *tag, size_t size);
