/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of a creation: "key=value" pairs from ctl or an INI section become a typed, checked
 * spec. Local work only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "providers/provider.h"

/**
 * Add one setting to a spec; a key that was given before is replaced.
 *
 * Keys:   those of DESIGN.md section 2, env.K, label.K, mount.N; not `provider`, which the caller
 *         takes out.
 * Errors: -EINVAL unknown key (the sentence names the nearest), bad value, over-long, a host name
 *         that starts with '-'; -ENOMEM.
 */
int settings_add(struct spec *s, const char *key, const char *value, struct call *c);

/* A deep copy. -ENOMEM; then *ret is empty. */
int spec_copy(const struct spec *s, struct spec *ret);

/* Whether `key` is the name of a setting at all. */
bool settings_is_key(const char *key);

/* The key of a setting ("cpu"); "env", "label", "mount" for the families. */
const char *setting_name(enum setting s);

/*
 * Refuse what the provider's table can't hold: -EOPNOTSUPP naming the setting and the provider,
 * then provider_check.
 */
int settings_check(const struct spec *s, struct provider *p, struct call *c);

/* What a spec asks for that the operator must allow (enum allow). */
unsigned settings_needs(const struct spec *s);
/*
 * -EPERM with the sentence that names what is not in `allow`. For what a user named: an INI
 * section's settings are the operator's own.
 */
int settings_check_allowed(const struct spec *s, unsigned allow, struct call *c);

/* One variable (value may be NULL) or one label. -EINVAL, -E2BIG. */
int settings_check_env(const char *key, const char *value, struct call *c);
int settings_check_label(const char *key, const char *value, struct call *c);

/* Arrays of pairs whose values may be secret: set replaces, all of them wipe. -ENOMEM. */
int pairs_set(struct pair **pairs, size_t *count, const char *key, const char *value);
void pairs_remove(struct pair *pairs, size_t *count, const char *key);
void pairs_free(struct pair *pairs, size_t count);

/*
 * "allow" words: isolation net mount runtime ssh, separated by ':' or ','.
 * -EINVAL names the bad one.
 */
int allow_parse(const char *words, unsigned *ret, struct call *c);
