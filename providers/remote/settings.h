/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what the operator said of a service (an INI section's keys, else the vendor's own
 * variables), and checks of what many services hold alike.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct call;
struct pair;
struct spec;

#define SETTINGS_ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* A variable of the environment; NULL where it is unset or empty. `name` may be NULL. */
const char *settings_variable(const char *name);
/* The section's `key`, else that variable; NULL neither. Borrowed. */
const char *settings_text(const struct pair *pairs, size_t count, const char *key,
                          const char *variable);
/* A copy of it, to free; nothing where it is NULL. -ENOMEM with a sentence. */
int settings_keep(struct call *c, const char *value, char **ret);
/* Likewise, without what would stand twice before a path. */
int settings_keep_url(struct call *c, const char *value, char **ret);
/* A secret word for a header, or nothing. -EINVAL: blanks are in it. */
int settings_keep_key(struct call *c, const char *name, const char *value, char **ret);
/* files = agent | shell */
int settings_read_files(const char *value, struct call *c, bool *ret_has_no_agent);
bool settings_is_host(const char *text);

/* Not empty, and of nothing else. */
bool settings_has_only(const char *text, const char *set);
/* workdir= and user=: -EINVAL what can't be. */
int settings_check_places(const struct spec *spec, struct call *c);
/* What stands behind `head` ("allow:", "deny:") in a net=; NULL: it begins otherwise. Borrowed. */
const char *settings_net_list(const char *net, const char *head);
/*
 * net=: none, all, or a list of what is allowed or denied, of the characters in `set` and not
 * empty. -EINVAL with `forms`, what one may write.
 */
int settings_check_net(const struct spec *spec, const char *set, const char *forms, struct call *c);
/* -EINVAL: the label's name begins with `prefix`; such names are somebody's (`whose`). */
int settings_check_label_name(const struct pair *label, const char *prefix, const char *whose,
                              struct call *c);
/* All of a spec's: no name begins with `ours`, no name or value has over `size_max` bytes. */
int settings_check_labels(const struct spec *spec, const char *ours, size_t size_max,
                          struct call *c);
