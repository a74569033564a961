/* SPDX-License-Identifier: Apache-2.0 */
/* The providers that this program knows: one array, one line each. */
#pragma once

#include <stddef.h>

struct provider_ops;

/* The table of a kind ("local"), or NULL. */
const struct provider_ops *registry_find(const char *kind);

/* All of them in order of the array: i = 0, 1, ... until NULL. */
const struct provider_ops *registry_at(size_t i);
