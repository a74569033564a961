/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration file: INI, one section a provider instance.
 *
 *      [name]          what provider= takes; also the kind, unless `kind` says another
 *      kind = local    a provider that this program knows
 *      allow = net     as the mount option
 *      memory = 2G     any setting: the default of what this instance makes
 *      ...             and the provider's own keys
 *
 * Everything is checked when it is read, without the network; a mistake is refused as FILE:LINE:
 * reason. Comments have lines of their own, so that a value may hold any character.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "providers/provider.h"
#include "transport/base/names.h"

struct fleet_section;

struct config_section {
        char instance[NAME_SIZE];
        char kind[NAME_SIZE];
        char *source; /* "FILE:LINE"; NULL: built in */
        struct pair *pairs; /* without kind and allow; values may be secret */
        unsigned *lines; /* of the pairs */
        size_t pair_count;
        unsigned allow; /* enum allow */
};

struct config {
        struct config_section *sections;
        size_t count;
        bool has_secret; /* some key's value is one */
};

#define CONFIG_INIT ((struct config){0})

void config_done(struct config *c); /* wipes */

/**
 * Parse the text of a file, which is called `name` in messages.
 *
 * Shape:  `text` has `size` bytes and a NUL after them.
 * Errors: -EINVAL, the sentence begins with name:line; -ENOMEM. *ret is untouched then.
 */
int config_parse(const char *name, const char *text, size_t size, struct config *ret,
                 struct call *c);

/**
 * Read a file. One with secrets must be for its owner's eyes only; none must be writable by all.
 *
 * Errors: as config_parse; -ENOENT there is none; -EPERM for its mode; -errno of the file system.
 */
int config_read(const char *path, struct config *ret, struct call *c);

/* Add what is there without configuration: an instance of `kind` under its own name, if none has
 * that name. -ENOMEM. */
int config_add_builtin(struct config *c, const char *kind);

/* Whether both say the same. */
bool config_is_same(const struct config *a, const struct config *b);

/* The instance's section, or NULL. */
const struct config_section *config_find(const struct config *c, const char *instance);

/* What fleet_open takes: an array of c->count that borrows from `c`, to free. NULL: no memory. */
struct fleet_section *config_fleet_sections(const struct config *c);
