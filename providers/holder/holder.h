/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder: process 1 of a sandbox. It starts each command, keeps what it prints until sbxfs has
 * it, and outlives sbxfs. What one command leaves running stays its child, until stop.
 *
 * Shared by the programs of the services that run it: sbxfs-holder (local), sbxfs-init (docker).
 *
 * Its parts: loop.c (start, event loop), conn.c (the connection to sbxfs), command.c (one command's
 * life), spawn.c (its process), log.c (its output), kill.c (signals to all), users.c (whose it is).
 *
 * Threads: one. Nothing blocks but epoll_wait. A command that is done with is freed after the round
 *          of events.
 * Trust:   the commands run under the same uid and may hate us. We can't be traced or read
 *          (PR_SET_DUMPABLE is 0), take no signal from inside (all are blocked), and have no file
 *          but /proc, /dev and descriptors.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "providers/holder/log.h"
#include "providers/holder/proto.h"
#include "providers/holder/users.h"
#include "transport/base/buf.h"
#include "transport/base/list.h"

struct holder;

/* Something that epoll watches. */
struct source {
        void (*ready)(struct holder *h, struct source *s, uint32_t events);
        int fd; /* owned; -1: none */
        uint32_t events; /* watched now; 0: not registered */
};

/* How signals reach everything in the sandbox, and nothing else. */
enum holder_reach {
        REACH_NAMESPACE, /* we are process 1 of a pid namespace */
        REACH_UID, /* no namespace, but a uid that only this sandbox has */
        REACH_TREE, /* neither: our descendants, found in /proc */
};

#define COMMANDS_ENDED_MAX 256 /* ends kept for an sbxfs that doesn't ask; the oldest goes first */
#define STDIN_KEPT_MAX (768u << 10)

struct command {
        struct list link;
        uint64_t number;
        pid_t pid; /* its process group too */
        struct source output[2];
        uint64_t total[2];
        struct source input;
        struct buf stdin_kept; /* taken from sbxfs, not yet in the pipe */
        uint64_t stdin_received, stdin_reported;
        bool stdin_is_last;
        struct holder_log log;
        uint64_t deadline_ns; /* TERM then; NEVER_NS */
        uint64_t kill_ns; /* KILL then; NEVER_NS */
        bool is_timed_out;
        bool is_attached; /* this connection wants its output */
        bool is_ended, is_end_sent, is_forgotten;
        enum proto_end end_kind;
        uint32_t end_value;
};

struct holder {
        int epoll;
        enum holder_reach reach;
        struct source listener, signals, conn;
        int oom_fd; /* our oom_score_adj; -1: not there */

        struct buf in, out; /* of the connection */
        int fds[8]; /* received, not yet claimed by a frame */
        unsigned fd_count;
        uint64_t execs; /* EXEC frames of this connection */
        bool was_greeted;

        struct buf env; /* K=V strings */
        uint32_t env_count;
        struct list commands; /* in order of their start */

        bool is_quiet; /* nobody but us */
        bool is_paused;
        uint64_t paused_ns; /* since */
        bool is_stopping;
        uint64_t stop_ns; /* KILL then; NEVER_NS afterwards */
        uint64_t leave_ns; /* exit then, whatever is unsent */

        /* Set by main before holder_run; what they are for is said there. */
        const char *log_dir;
        const char *user;
        bool (*may_join)(int fd);
        bool ends_by_signal;
};

/**
 * Run as the holder; never returns.
 *
 * Shape:   h->reach and h->listener.fd are set, the rest is 0, but for these as they are wanted:
 *          log_dir   where the output of a command is kept that came without a file for it
 *          user      as whom commands run that name nobody (user_find); NULL: as we do
 *          may_join  whether a connection is sbxfs; NULL: everybody's is, nobody else can reach us
 *          ends_by_signal  SIGTERM from outside of our pid namespace is a STOP; and without sbxfs
 *                    we stay
 *          env       what every command gets, unless a frame says it
 */
void holder_run(struct holder *h) __attribute__((noreturn));

/* loop.c: change what is watched of a source; 0 unregisters. Failures end the holder. */
void source_watch(struct holder *h, struct source *s, uint32_t events);
void source_close(struct holder *h, struct source *s);

/* conn.c */
void conn_accept(struct holder *h, struct source *s, uint32_t events);
void conn_send(struct holder *h, const struct proto_msg *m); /* nobody there: nothing */
void conn_pump(struct holder *h); /* give the connection what it can take */
bool conn_is_idle(const struct holder *h); /* all is sent, or nobody is there */
void conn_stop(struct holder *h, uint32_t grace_ms); /* TERM to all, KILL, and the end */
struct proto_quiet conn_quiet(const struct holder *h);

/* command.c */
struct command *command_find(struct holder *h, uint64_t number); /* not the forgotten ones */
/* Takes ownership of log_fd. 0 with *ret, or -errno with a sentence. */
int command_start(struct holder *h, const struct proto_msg *m, int log_fd, char *sentence,
                  size_t size, struct command **ret);
int command_stdin(struct holder *h, struct command *x, const struct proto_msg *m); /* -EPROTO */
/* read its pipes, or wait until it was acknowledged */
void command_flow(struct holder *h, struct command *x);
void command_forget(struct holder *h, struct command *x);
void commands_reap(struct holder *h); /* after SIGCHLD: ends and quietness */
void commands_tick(struct holder *h, uint64_t now_ns);
uint64_t commands_deadline(const struct holder *h);
void commands_shift(struct holder *h, uint64_t span_ns); /* the clock stood still */
bool commands_are_heard(const struct holder *h); /* somebody has yet to see an end */
void commands_sweep(struct holder *h); /* free what is done with */

/* kill.c: a signal to everything but us. */
void kill_all(const struct holder *h, int signal);

/* A command that is about to be started. */
struct start {
        int cwd;
        int child[3]; /* the command's ends; child[0] -1: /dev/null */
        char **argv, **envp;
        char program[4096];
        const struct user *user; /* NULL: as we are */
        struct user who;
        char home[sizeof("HOME=") + sizeof(((struct user *)NULL)->home)];
};

/* spawn.c: its process, leader of a session and of a group. 0 with *ret, or -errno. */
int spawn(const struct holder *h, const struct start *s, pid_t *ret);
