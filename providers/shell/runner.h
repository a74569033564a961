/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who runs scripts in a sandbox: helper shells (shell.h) where a program can be kept on a stream, or
 * whatever a service offers.
 */
#pragma once

#include "providers/shell/shell.h"

struct shell_runner {
        /* As shell_run, */
        int (*run)(struct shell_runner *by, struct call *c, const char *script,
                   struct shell_sink *to, int *ret_code);
        /* and shell_run_stream: there $v needn't be set. */
        int (*run_stream)(struct shell_runner *by, struct call *c, const char *taker,
                          const char *script, struct shell_source *from, struct shell_sink *to);
};

/* By helper shells. */
struct shell_by_helpers {
        struct shell_runner runner;
        struct shell *shell;
};
struct shell_by_helpers shell_by_helpers(struct shell *s);
