/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command of a sandbox: what stands behind exec/<n>/.
 * (The provider's side of it is `struct exec`.)
 *
 *      new ----cmd written----> queued ----started----> running ----end----> ended
 *       (mkdir exec/NAME)         '--------- refused, lost, error ------------^
 *
 * Output is spooled to files of the state directory: stdout, stderr, and output (both as they
 * came). Bytes once shown never change; sizes only grow. At cap - 1 MiB a file stops growing; at
 * the end a marker and the last 1 MiB are appended.
 *
 * Threads: all functions may be called from any thread; reads take no lock during I/O.
 *          A task is reference-counted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "providers/provider.h"

struct buf;
struct sandbox;
struct task;

enum task_state { TASK_NEW, TASK_QUEUED, TASK_RUNNING, TASK_ENDED };
const char *task_state_name(enum task_state s);

enum task_file { TASK_STDOUT, TASK_STDERR, TASK_OUTPUT };

struct task_info {
        uint64_t number; /* from 1; also of named ones */
        char name[NAME_SIZE]; /* directory name under exec/: the given name, else the number */
        bool is_named;
        enum task_state state;
        uint64_t started_real_ns, ended_real_ns; /* 0: not yet */
        uint64_t changed_real_ns; /* last change of anything but output */
        uint64_t output_real_ns; /* last growth of output; the start before that */
        int64_t pid; /* inside; 0 unknown */
        uint64_t dropped[2];
        /* "" until ended; then `0`, `2`, `signal 9`, `timeout`, `lost`, `error TEXT` */
        char exit[1100];
        /* the line that wait gives: `exit 2`, `signal 9`, ...; "" until ended. Without newline */
        char wait[1100];
};

/* What to run and how. Borrowed; absent texts are NULL. */
struct task_options {
        const char *name; /* of exec/NAME; NULL: its number */
        const char *const *argv; /* execv; NULL when text is given */
        const char *text; /* for sh -c */
        const char *cwd;
        const char *user;
        uint64_t timeout_ns; /* 0: none */
        bool has_stdin_open; /* stdin=open */
        const void *stdin_data; /* all of stdin; NULL: none */
        size_t stdin_size;
        bool ignore_unsent; /* unsent=ignore */
        const struct pair *env;
        size_t env_count;
};

struct task *task_ref(struct task *t);
void task_unref(struct task *t); /* accepts NULL */
void task_freep(struct task **t);

/* borrowed: lives at least as long as the task */
struct sandbox *task_sandbox(const struct task *t);
uint64_t task_number(const struct task *t); /* fixed */
void task_get(struct task *t, struct task_info *ret);
bool task_has_ended(struct task *t); /* the end can be seen */
uint64_t task_changes(struct task *t); /* rises with every change of state or output: for poll(2) */

uint64_t task_size(struct task *t, enum task_file file);
/* Bytes at `offset`: fewer than `size` only at the end of what there is; 0 there. -errno. */
ssize_t task_read(struct task *t, enum task_file file, void *data, size_t size, uint64_t offset);
int task_print_cmd(struct task *t, struct buf *to); /* the text of `cmd`; "" while new */

/*
 * A task of mkdir exec/NAME gets its command: queued. -EBUSY when it has one;
 * as sandbox_exec otherwise.
 */
int task_start(struct task *t, const struct task_options *options, struct call *c);

/**
 * Append to stdin's spool. -EBUSY stdin is /dev/null (not open, not new) ; -EPIPE the command has
 * ended or eof was said; -ENOSPC over 64 MiB. Nothing of it was taken on failure.
 */
int task_write_stdin(struct task *t, const void *data, size_t size);
int task_stdin_eof(struct task *t); /* -EBUSY as above; said twice: success */
uint64_t task_stdin_size(struct task *t); /* bytes spooled so far */

/*
 * signal 0: TERM, 5 s, KILL. -ESRCH it has ended; a queued one ends as `signal N` without ever
 * running. Accepted here, sent on a worker.
 */
int task_kill(struct task *t, int signal, uint64_t seq);
