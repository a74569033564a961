/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/rows.h"

#include <string.h>
#include <sys/stat.h>

#define DIR(number_, place_, name_, listed_)                                                       \
        {                                                                                          \
                number_, place_, name_, KIND_DIR, S_IFDIR | 0700, listed_                          \
        }
#define ROW(number_, place_, name_, kind_, mode_)                                                  \
        {                                                                                          \
                number_, place_, name_, kind_, S_IFREG | (mode_), true                             \
        }
#define HIDDEN(number_, place_, name_, kind_, mode_)                                               \
        {                                                                                          \
                number_, place_, name_, kind_, S_IFREG | (mode_), false                            \
        }

/* In the order of readdir: ctl first, so that rm -rf meets it before what it could destroy. */
static const struct row rows[] = {
        DIR(ROW_ROOT, PLACE_ROOT, NULL, false),
        ROW(ROW_ROOT_CTL, PLACE_ROOT, "ctl", KIND_CTL, 0600),
        ROW(ROW_ROOT_STATUS, PLACE_ROOT, "status", KIND_TEXT, 0400),
        ROW(ROW_ROOT_README, PLACE_ROOT, "README", KIND_TEXT, 0400),

        DIR(ROW_SANDBOX, PLACE_SANDBOX, NULL, false),
        ROW(ROW_CTL, PLACE_SANDBOX, "ctl", KIND_CTL, 0600),
        ROW(ROW_STDIN, PLACE_SANDBOX, "stdin", KIND_STDIN, 0200),
        ROW(ROW_STDOUT, PLACE_SANDBOX, "stdout", KIND_OUTPUT, 0400),
        ROW(ROW_STDERR, PLACE_SANDBOX, "stderr", KIND_OUTPUT, 0400),
        ROW(ROW_STATUS, PLACE_SANDBOX, "status", KIND_TEXT, 0400),
        ROW(ROW_ERROR, PLACE_SANDBOX, "error", KIND_TEXT, 0400),
        ROW(ROW_ENV, PLACE_SANDBOX, "env", KIND_ENV, 0200),
        ROW(ROW_UNSENT, PLACE_SANDBOX, "unsent", KIND_TEXT, 0400), /* while something is */
        DIR(ROW_EXEC, PLACE_SANDBOX, "exec", true),
        {ROW_FS, PLACE_SANDBOX, "fs", KIND_FS, S_IFDIR | 0755, true},
        HIDDEN(ROW_WAIT, PLACE_SANDBOX, "wait", KIND_WAIT, 0400),
        HIDDEN(ROW_FOLLOW, PLACE_SANDBOX, "follow", KIND_FOLLOW, 0400),
        HIDDEN(ROW_JSON, PLACE_SANDBOX, "status.json", KIND_TEXT, 0400),

        {ROW_LAST, PLACE_EXEC, "last", KIND_LINK, S_IFLNK | 0777, true},

        DIR(ROW_TASK, PLACE_TASK, NULL, false),
        ROW(ROW_TASK_CTL, PLACE_TASK, "ctl", KIND_CTL, 0600),
        ROW(ROW_TASK_CMD, PLACE_TASK, "cmd", KIND_CMD, 0600),
        ROW(ROW_TASK_STATUS, PLACE_TASK, "status", KIND_TEXT, 0400),
        ROW(ROW_TASK_EXIT, PLACE_TASK, "exit", KIND_TEXT, 0400),
        ROW(ROW_TASK_STDIN, PLACE_TASK, "stdin", KIND_STDIN, 0200),
        ROW(ROW_TASK_STDOUT, PLACE_TASK, "stdout", KIND_OUTPUT, 0400),
        ROW(ROW_TASK_STDERR, PLACE_TASK, "stderr", KIND_OUTPUT, 0400),
        ROW(ROW_TASK_OUTPUT, PLACE_TASK, "output", KIND_OUTPUT, 0400),
        HIDDEN(ROW_TASK_WAIT, PLACE_TASK, "wait", KIND_WAIT, 0400),
        HIDDEN(ROW_TASK_FOLLOW, PLACE_TASK, "follow", KIND_FOLLOW, 0400),
        HIDDEN(ROW_TASK_JSON, PLACE_TASK, "status.json", KIND_TEXT, 0400),

        {ROW_SCRATCH, PLACE_SANDBOX, NULL, KIND_SCRATCH, S_IFREG | 0600, false},
};

#define COUNT (sizeof(rows) / sizeof(rows[0]))

/* wait.SECONDS stands for wait of the same directory; which one, the number of the task tells. */
static const struct row wait_span = HIDDEN(ROW_WAIT_SPAN, PLACE_SANDBOX, NULL, KIND_WAIT, 0400);

const struct row *row_by_number(unsigned number)
{
        if (number >= ROW_WAIT_SPAN)
                return number < 256 ? &wait_span : NULL;
        for (size_t i = 0; i < COUNT; i++) {
                if (rows[i].number == number)
                        return &rows[i];
        }
        return NULL;
}

const struct row *row_by_name(enum row_place place, const char *name)
{
        for (size_t i = 0; i < COUNT; i++) {
                if (rows[i].place == place && rows[i].name && strcmp(rows[i].name, name) == 0)
                        return &rows[i];
        }
        return NULL;
}

const struct row *row_listed(enum row_place place, size_t i)
{
        for (size_t k = 0; k < COUNT; k++) {
                if (rows[k].place == place && rows[k].is_listed && i-- == 0)
                        return &rows[k];
        }
        return NULL;
}
