/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "providers/files.h"

struct shell_runner; /* runner.h */

/**
 * List a directory, or a tree, by GNU find.
 *
 * Shape:  `root` is the absolute path of what->path.
 * Errors: as box_list; -ENOENT also where it can't be looked at; what the script's run returns.
 */
int find_list(struct shell_runner *by, struct call *c, const char *root,
              const struct file_listing *what, struct file_list_sink *to);
