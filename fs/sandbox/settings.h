/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of a creation: "key=value" pairs from ctl or an INI section become a typed, checked spec. Local work only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "providers/provider.h"

/**
 * Add one setting to a spec; a key that was given before is replaced.
 *
 * Keys:   those of DESIGN.md section 2, env.K, label.K, mount.N; not `provider`, which the caller takes out.
 * Errors: -EINVAL unknown key (the sentence names the nearest), bad value, over-long, a host name that starts with '-'; -ENOMEM.
 */
int settings_add(struct spec *s, const char *key, const char *value, struct call *c);

/* Whether `key` is the name of a setting at all. */
bool settings_is_key(const char *key);

/* The key of a setting ("cpu"); "env", "label", "mount" for the families. */
const char *setting_name(enum setting s);

/* Refuse what the provider's table can't hold: -EOPNOTSUPP naming the setting and the provider, then provider_check. */
int settings_check(const struct spec *s, struct provider *p, struct call *c);

/* "allow" words: isolation net mount runtime ssh, separated by ':' or ','. -EINVAL names the bad one. */
int allow_parse(const char *words, unsigned *ret, struct call *c);
