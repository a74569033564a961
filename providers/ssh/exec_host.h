/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands on a host, as exec*.c share them.
 *
 *      exec.c           the table's functions: start, attach, write, signal, release
 *      exec_channel.c   channels that wait for a command to start: one round trip instead of three
 *      exec_pump.c      a thread that fetches output of all running commands, many in one round
 *                       trip, and finishes those whose report left something to fetch
 *      exec_errand.c    threads for what somebody else must not wait for: ends that need no
 *                       network, stdin, new channels, leavings
 *      exec_sink.c      the only callers of a sink
 *
 * A command is followed in one of two ways. With a channel: its supervisor reports the end there.
 * Without (attached, or its channel died): probes by the helper shell, until N.rc is there. In
 * either, output is read from N.out and N.err by offset, and a lost connection is only a pause.
 *
 * Threads: struct ssh_exec is guarded by its host's lock, but for what belongs to the thread that
 *          set `is_busy`. Each holds a reference while it has one outside of the lock.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"
#include "providers/ssh/report.h"
#include "providers/ssh/script.h"
#include "providers/ssh/ssh.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/sftp/sftp.h"

#define EXEC_FETCH_MAX (UINT64_C(64) << 20) /* of a stream, while it runs */
#define EXEC_ATTACHED_MAX 8
#define EXEC_TAIL (UINT64_C(1) << 20) /* beyond that: its last bytes, at the end */

/* A program of the host that reads one script. */
struct exec_channel {
        struct list link; /* among the host's spares, guarded; else linked to itself */
        struct exec_host *host;
        struct stream *stream;
        uint64_t opened_ns;
        /* guarded by the host's lock */
        struct ssh_exec *exec; /* that started by it; NULL: a spare */
        bool has_ended;
        struct stream_end end;
};

enum exec_file { EXEC_OUT, EXEC_ERR, EXEC_TOOK };
#define EXEC_FILES 3

struct ssh_exec {
        struct exec base;

        /* fixed after init */
        struct exec_host *host;
        uint64_t number;
        char *run; /* the sandbox's */
        char *prefix; /* run/ID */
        bool has_stdin;
        bool detaches; /* gives its channel up as soon as it runs */

        /* guarded by the host's lock */
        struct list link;
        unsigned refs;
        struct exec_sink *sink; /* NULL: released, or its end was told */
        bool is_calling; /* a sink's function runs, in `caller` */
        pthread_t caller;
        bool is_followed; /* it was started: the threads may have it */
        bool is_busy; /* one has it */
        bool is_ended; /* and the end was told */
        bool has_end;
        struct exec_end end; /* to be told when all output was */
        struct exec_channel *channel; /* NULL: probes */
        struct report report;
        uint64_t due_ns; /* the pump's next look */
        uint64_t pause_ns; /* between looks */
        uint64_t probe_ns; /* next probe, without a channel */
        uint64_t probe_pause_ns;
        uint64_t given[2]; /* bytes of each stream that the sink got or that were skipped */
        uint64_t size[2]; /* of the files, last seen */
        uint64_t punched[2]; /* given back to the host's disk */
        /* stdin */
        struct buf input; /* [input_at, input_at + size): accepted, not there yet */
        uint64_t input_at;
        uint64_t taken; /* by the feeder */
        uint64_t taken_told;
        bool is_last; /* nothing comes after `input` */
        bool is_last_fed;
        uint64_t feed_ns; /* not before this */
        bool is_feeding; /* the first `piece` bytes of input were sent, not known to be there */
        size_t piece;

        /* of the thread that has it */
        struct ssh_link *file_link; /* where the handles are open */
        struct sftp_handle handles[EXEC_FILES];
        unsigned window[2]; /* pieces read at once */
};

enum exec_thread { EXEC_PUMP, EXEC_ENDER, EXEC_ERRAND };
#define EXEC_THREADS 3

struct exec_host {
        /* fixed after init */
        struct ssh_host *host;

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct list execs;
        bool has_threads;
        bool is_ending;
        uint64_t
                news; /* rises with each broadcast: what the errand boy looked at may have changed */
        pthread_t threads[EXEC_THREADS];
        struct call *calls[EXEC_THREADS]; /* what each waits for, to be cancelled */
        struct list spares;
        unsigned spare_count; /* with those that are being opened */
        unsigned spare_target;
        unsigned attached_max; /* commands that keep their channel while they run */
        uint64_t spare_used_ns; /* when one was last asked for */
        uint64_t spare_retry_ns; /* opening failed: not before this */
        struct list leavings; /* struct leaving */
        uint64_t leaving_retry_ns;
};

/* Of one run directory: commands that are over and forgotten. */
struct leaving {
        struct list link;
        char *run;
        char names[64][SCRIPT_NAME_SIZE];
        size_t count;
};

/* ---- exec_host.c ---- */

int exec_host_new(struct ssh_host *h, struct exec_host **ret);
void exec_host_free(struct exec_host *eh); /* accepts NULL */
/* The threads, from the first command on. */
int exec_host_start(struct exec_host *eh, struct call *c);
/* A call of a thread's own, which the host's end cancels; -ESHUTDOWN when it has come. */
int exec_call_begin(struct exec_host *eh, enum exec_thread t, struct call *c, uint64_t span_ns);
void exec_call_end(struct exec_host *eh, enum exec_thread t);

/* Something changed: every thread looks again. */
void exec_wake_locked(struct exec_host *eh) REQUIRES(eh->lock);
void exec_unref_locked(struct exec_host *eh, struct ssh_exec *x) REQUIRES(eh->lock);
/* The thread that has it lets go of it and of its reference. */
void exec_let_go(struct ssh_exec *x);
/* What the report says and what its channel's end means is taken over. */
void exec_news_locked(struct exec_host *eh, struct ssh_exec *x) REQUIRES(eh->lock);
/*
 * Stdin that counts as taken: some of it may wait here and on the host, so that round trips don't
 * hold up the writer. What a crash of ours loses of that is told by the next attach.
 */
uint64_t exec_taken_locked(struct exec_host *eh, const struct ssh_exec *x) REQUIRES(eh->lock);
/* Its files may go. */
void exec_forget_locked(struct exec_host *eh, struct ssh_exec *x) REQUIRES(eh->lock);

/* ---- exec_channel.c ---- */

/* A channel for `x`, a spare if there is one. */
int channel_take(struct exec_host *eh, struct call *c, struct ssh_exec *x);
/*
 * The host takes no more channels: spares are closed, and from now on each command gives its own up
 * as soon as it runs. Waits a moment for that. False: `until_ns` has come, or the call is over.
 */
bool channel_make_room(struct exec_host *eh, struct call *c, uint64_t until_ns);
#define ROOM_WAIT_NS (5 * NS_PER_S) /* for a channel that another command gives up */
/* The next command should give its channel up once it runs: many have one. */
bool channel_detaches(struct exec_host *eh);
/* Closes the exec's channel, if it has one. Never from an event. */
void channel_drop(struct ssh_exec *x);
/* Opens spares, buries dead ones. The time of the next look. */
uint64_t channel_errand(struct exec_host *eh);
void channel_free_all(struct exec_host *eh);

/* ---- exec_sink.c: by the thread that has x ---- */

void sink_output(struct ssh_exec *x, unsigned stream, uint64_t offset, const void *data,
                 size_t size);
void sink_taken(struct ssh_exec *x, uint64_t total);
/* The output that the report brought along. */
void sink_inline(struct ssh_exec *x);
void sink_end(struct ssh_exec *x, const struct exec_end *end);

/* ---- threads ---- */

void *exec_pump(void *exec_host);
void *exec_ender(void *exec_host);
void *exec_errand(void *exec_host);
