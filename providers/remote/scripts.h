/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scripts in a sandbox by calls that run one command to its end (ops->run), where no program can be
 * kept on a stream. Slow, a call a script, but every service has that. What goes in and comes out
 * is base64: such calls change bytes that are no text.
 *
 * Threads: any, everywhere.
 */
#pragma once

#include "providers/remote/remote.h"

struct buf;

#define SCRIPTS_DIR_SIZE 64

/* A new name for a directory of ours there; nothing is made. 0 or -errno. */
int scripts_dir(char ret[SCRIPTS_DIR_SIZE]);

/*
 * Run `script` with $1 and on as given (NULL-terminated, at most 8): its stdout into `out`. It says
 * itself what failed, and bears to run twice. -EIO when its code isn't 0.
 */
int scripts_run(struct remote_box *b, struct call *c, const char *user, const char *script,
                const char *const *args, struct buf *out);

/* For providers/shell/forms.h. */
void scripts_runner_init(struct shell_runner *by); /* remote_box.by_scripts */
