/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where one path lies to another, by their text alone: components are joined by one '/', none is
 * "." or "..", there is no '/' at the end. Relative paths may be "", which is above all others.
 */
#pragma once

#include <stdbool.h>
#include <string.h>

/* What follows `dir` in `path`: "" it is the same, "/x" it is below; NULL neither. Borrowed. */
static inline const char *path_rest(const char *path, const char *dir)
{
        size_t size = strlen(dir);

        if (strncmp(path, dir, size) != 0)
                return NULL;
        return size == 0 || path[size] == '/' || !path[size] ? path + size : NULL;
}

/* `path` is `dir`, or is below it. */
static inline bool path_is_within(const char *path, const char *dir)
{
        return path_rest(path, dir) != NULL;
}

/* One is the other, or is above it. NULL is nowhere. */
static inline bool path_is_related(const char *a, const char *b)
{
        return a && b && (path_is_within(a, b) || path_is_within(b, a));
}
