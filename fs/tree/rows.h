/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual files: one row each. A row's number is part of inode numbers (tree.h): numbers never
 * change, new rows get new ones.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The directories that rows stand in. */
enum row_place { PLACE_ROOT, PLACE_SANDBOX, PLACE_EXEC, PLACE_TASK };

/* What a row is: how it is opened, read and written. */
enum row_kind {
        KIND_DIR,
        KIND_FS, /* the volume's root */
        KIND_LINK, /* exec/last */
        KIND_TEXT, /* text made when it is opened */
        KIND_CTL,
        KIND_ENV,
        KIND_STDIN,
        KIND_CMD,
        KIND_OUTPUT,
        KIND_WAIT,
        KIND_FOLLOW,
        KIND_SCRATCH,
};

enum row_number {
        ROW_ROOT = 1,
        ROW_ROOT_CTL = 2,
        ROW_ROOT_STATUS = 3,
        ROW_ROOT_README = 4,
        ROW_SANDBOX = 16,
        ROW_CTL = 17,
        ROW_FS = 18,
        ROW_STDIN = 19,
        ROW_STDOUT = 20,
        ROW_STDERR = 21,
        ROW_STATUS = 22,
        ROW_ERROR = 23,
        ROW_ENV = 24,
        ROW_UNSENT = 25,
        ROW_EXEC = 26,
        ROW_WAIT = 27,
        ROW_FOLLOW = 28,
        ROW_JSON = 29,
        ROW_LAST = 40,
        ROW_TASK = 48,
        ROW_TASK_CMD = 49,
        ROW_TASK_STATUS = 50,
        ROW_TASK_EXIT = 51,
        ROW_TASK_STDIN = 52,
        ROW_TASK_STDOUT = 53,
        ROW_TASK_STDERR = 54,
        ROW_TASK_OUTPUT = 55,
        ROW_TASK_CTL = 56,
        ROW_TASK_WAIT = 57,
        ROW_TASK_FOLLOW = 58,
        ROW_TASK_JSON = 59,
        ROW_SCRATCH = 127,
        /* from here to 255: wait.SECONDS, by the order in which spans were first asked for */
        ROW_WAIT_SPAN = 128,
};

struct row {
        uint8_t number;
        enum row_place place;
        const char *name; /* NULL: of its parent's making (sandboxes, tasks, scratch files) */
        enum row_kind kind;
        mode_t mode; /* type and permission bits */
        bool is_listed;
};

/* NULL: no such row. wait.SECONDS give the row of wait */
const struct row *row_by_number(unsigned number);
/* also unlisted ones; NULL */
const struct row *row_by_name(enum row_place place, const char *name);
/* The i-th listed row of a place, in the order of readdir; NULL past the end. */
const struct row *row_listed(enum row_place place, size_t i);
