/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What GNU find prints of files, and reading it: two NUL-terminated strings a file, numbers and the
 * path, then the text of a link. Pure; all of it is foreign: nothing that doesn't parse exactly is
 * taken.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "transport/base/buf.h"

/* Bytes of an absolute path: what Linux takes, and more. */
#define PATH_BYTES_MAX ((size_t)64 * 1024)

/* One line of find: a file by its path below the one that was asked for, "" itself. */
struct found {
        const char *path;
        const char *target; /* of a link, else NULL */
        struct stat st;
        uint64_t dev;
        bool is_closed; /* a directory that we may not read */
};

/* Told by bytes; entry is called for each whole line. */
struct find_parser {
        struct buf pending;
        bool is_given; /* find_print_given */
        int (*entry)(void *ctx, const struct found *f); /* non-zero ends it */
        void *ctx;
};

#define FIND_LINE_MAX (2 * PATH_BYTES_MAX)
#define FIND_PENDING_MAX ((size_t)4 << 20)

/* The arguments of find(1) that print what find_parse reads; with its quotes. */
extern const char find_print[];
/* The same of what find was given, by the path that it was given, as it is; and its atime. */
extern const char find_print_given[];
int find_parse(struct find_parser *p, const void *data, size_t size); /* 0; -EPROTO; entry's */
