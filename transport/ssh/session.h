/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a connection: session.c has its thread, channel.c its channels.
 *
 * A channel is known to two: its user, from ssh_open to stream_close, and the owner thread, which
 * drops it once libssh2 has. The user's side holds the reference of the session.
 *
 *      WAITING    others are being opened
 *      OPENING    asked for a channel
 *      STARTING   asked for the program
 *      OPEN       its user reads and writes
 *      CLOSING    ended, or left by its user: libssh2_channel_free until it is done
 *      GONE       to be dropped
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/ssh/dial.h"
#include "transport/ssh/sock.h"
#include "transport/ssh/ssh.h"

#define SSH_SENTENCE_MAX 256
#define READ_SIZE ((size_t)256 << 10)

enum channel_state { WAITING, OPENING, STARTING, OPEN, CLOSING, GONE };

struct channel {
        struct stream stream; /* first */
        /* fixed after init */
        struct ssh *ssh;
        struct stream_events events;
        enum ssh_kind kind;
        char *what;
        atomic_uint refs; /* user, owner */
        /* guarded by ssh->lock */
        struct list link; /* in ssh->fresh */
        struct list pieces; /* to be sent */
        struct piece *spare;
        size_t queued;
        int error; /* of opening; with is_answered */
        char sentence[SSH_SENTENCE_MAX];
        bool is_answered; /* opening has come to its end */
        bool is_taken; /* ssh_open has returned it: events may come */
        bool is_left; /* by its user: no more events */
        bool is_over; /* its end was told, or there is none to tell: nothing can be sent */
        bool has_eof; /* to be sent after the pieces */
        /* owner only */
        enum channel_state state;
        LIBSSH2_CHANNEL *remote;
        uint64_t asked_ns;
        bool wants_write, wants_eof, is_wanted, gets_events; /* as sync has last seen it */
        bool sent_eof;
};

struct ssh {
        atomic_uint refs;
        atomic_uint_fast64_t round_trip;
        /* fixed after init */
        char *name; /* "host port 22" */
        char *banner;
        pthread_t thread;
        bool has_thread;
        int wake_fd;
        struct dial_proxy proxy;
        /* guarded by lock */
        struct mutex lock;
        struct cond changed;
        struct list fresh; /* channels that the owner has not seen */
        struct channel *in_event; /* whose events run now */
        int error; /* it is over */
        char sentence[SSH_SENTENCE_MAX];
        bool has_news; /* the owner has to look once more before it sleeps */
        bool is_awake; /* it will */
        bool is_ending; /* the last reference is gone */
        /* owner only, once it runs */
        struct sock sock;
        struct channel **channels; /* in order of their opening */
        size_t count, room;
        size_t turn; /* whose turn it is first */
        char *data; /* READ_SIZE */
        uint64_t taken; /* sock.taken at the last reading */
        bool reads_more; /* somebody had more than one turn may give */
        uint64_t expects_ns; /* since when the server owes us an answer; 0: it does not */
        bool is_expectant; /* something was asked since the last keep-alive */
        struct channel *probe; /* on which a keep-alive is out */
        uint64_t probe_ns; /* since when; 0 none */
        int fatal; /* -errno: stop */
        char reason[SSH_SENTENCE_MAX];
};

/* -- session.c */

/* Let the owner look; with the lock held. */
void ssh_wake_locked(struct ssh *s) REQUIRES(s->lock);
/* The owner is to stop, for this reason; the first one counts. */
void ssh_fail(struct ssh *s, int error, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
/* Something was asked of the server. */
void ssh_expect(struct ssh *s);
/* A call of libssh2 failed: true when that ends the connection. */
bool ssh_failed(struct ssh *s, int rc, const char *doing);
void ssh_measured(struct ssh *s, uint64_t since_ns);
int ssh_start(struct ssh *s);

/* -- channel.c, for the owner; what returns bool tells whether it got on */

void channel_sync_locked(struct channel *ch); /* with ssh->lock */
bool channel_open_step(struct channel *ch);
bool channel_write_step(struct channel *ch);
bool channel_read_step(struct channel *ch);
bool channel_close_step(struct channel *ch);
/* The connection is over: tell its end, and forget the remote side. */
void channel_abandon(struct channel *ch, int error, const char *sentence);
void channel_unref(struct channel *ch);
