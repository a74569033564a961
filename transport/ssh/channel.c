/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel as a stream. What is sent is kept in pieces, which libssh2 is given where they lie;
 * small sends share one.
 */

#include "transport/ssh/session.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/ssh/errors.h"

#define PIECE_ROOM ((size_t)32 << 10)
#define QUEUE_MAX ((size_t)64 << 20)
#define PACKET_MAX 32700 /* libssh2 takes no more at once */
#define WINDOW (3u << 20) /* of what the server may send; renewed before a quarter is used */
#define READS_MAX 4 /* of READ_SIZE, in one turn */
#define SLICE_NS (50 * NS_PER_MS) /* how late a cancelled call may be noticed */

struct piece {
        struct list link;
        size_t at, size, room; /* at: what was sent; owner only */
        char data[];
};

/* -- its user's side */

static struct channel *channel_of(struct stream *stream)
{
        return container_of(stream, struct channel, stream);
}

static struct piece *piece_new(const void *data, size_t size)
{
        size_t room = size > PIECE_ROOM ? size : PIECE_ROOM;
        struct piece *p = malloc(sizeof(*p) + room);

        if (!p)
                return NULL;
        *p = (struct piece){.size = size, .room = room};
        memcpy(p->data, data, size);
        return p;
}

static int check_send_locked(const struct channel *ch, size_t size)
{
        if (ch->is_over || ch->has_eof)
                return -EPIPE;
        return size > QUEUE_MAX - ch->queued ? -ENOBUFS : 0;
}

/* Into the newest piece, or the spare one; false when it doesn't fit. */
static bool append_locked(struct channel *ch, const void *data, size_t size)
{
        struct piece *p = NULL;

        if (!list_is_empty(&ch->pieces)) {
                p = list_entry(ch->pieces.prev, struct piece, link);
        } else if (ch->spare && size <= ch->spare->room) {
                p = ch->spare;
                ch->spare = NULL;
                p->at = p->size = 0;
                list_add_tail(&ch->pieces, &p->link);
        }
        if (!p || size > p->room - p->size)
                return false;
        memcpy(p->data + p->size, data, size);
        p->size += size;
        return true;
}

static int do_send(struct stream *stream, const void *data, size_t size)
{
        struct channel *ch = channel_of(stream);
        struct ssh *s = ch->ssh;
        struct piece *p = NULL;
        int r;

        if (size == 0)
                return 0;
        if (size > PIECE_ROOM) {
                p = piece_new(data, size);
                if (!p)
                        return -ENOMEM;
        }
        mutex_lock(&s->lock);
        r = check_send_locked(ch, size);
        if (r == 0 && (p || !append_locked(ch, data, size))) {
                if (!p)
                        p = piece_new(data, size);
                if (p)
                        list_add_tail(&ch->pieces, &p->link);
                else
                        r = -ENOMEM;
                p = NULL;
        }
        if (r == 0) {
                ch->queued += size;
                ssh_wake_locked(s);
        }
        mutex_unlock(&s->lock);
        free(p);
        return r;
}

static int do_send_eof(struct stream *stream)
{
        struct channel *ch = channel_of(stream);
        struct ssh *s = ch->ssh;
        int r;

        mutex_lock(&s->lock);
        r = ch->is_over ? -EPIPE : 0;
        if (!ch->has_eof) {
                ch->has_eof = true;
                ssh_wake_locked(s);
        }
        mutex_unlock(&s->lock);
        return r;
}

static size_t do_queued(struct stream *stream)
{
        struct channel *ch = channel_of(stream);
        size_t queued;

        mutex_lock(&ch->ssh->lock);
        queued = ch->queued;
        mutex_unlock(&ch->ssh->lock);
        return queued;
}

static void leave(struct channel *ch)
{
        struct ssh *s = ch->ssh;

        assert(!pthread_equal(s->thread, pthread_self())); /* from an event */
        mutex_lock(&s->lock);
        ch->is_left = ch->is_over = true;
        while (s->in_event == ch)
                cond_wait(&s->changed, &s->lock); /* events don't block */
        ssh_wake_locked(s);
        mutex_unlock(&s->lock);
        channel_unref(ch);
        ssh_unref(s);
}

static void do_close(struct stream *stream)
{
        leave(channel_of(stream));
}

static const struct stream_ops channel_ops = {
        .send = do_send,
        .send_eof = do_send_eof,
        .queued = do_queued,
        .close = do_close,
};

/* The reference of the session is the user's. */
static struct channel *channel_new(struct ssh *s, enum ssh_kind kind, const char *what,
                                   const struct stream_events *events)
{
        struct channel *ch = calloc(1, sizeof(*ch));

        if (!ch)
                return NULL;
        ch->stream.ops = &channel_ops;
        ch->events = *events;
        ch->kind = kind;
        ch->what = strdup(what);
        atomic_init(&ch->refs, 2);
        list_init(&ch->link);
        list_init(&ch->pieces);
        if (!ch->what) {
                free(ch);
                return NULL;
        }
        ch->ssh = ssh_ref(s);
        return ch;
}

static void drop_pieces(struct list *pieces)
{
        list_for_each_safe (l, next, pieces)
                free(list_entry(l, struct piece, link));
        list_init(pieces);
}

void channel_unref(struct channel *ch)
{
        if (atomic_fetch_sub(&ch->refs, 1) > 1)
                return;
        drop_pieces(&ch->pieces);
        free(ch->spare);
        free(ch->what);
        free(ch);
}

/* Until it is open, or failed; from its opening on there are events. */
static int wait_for_answer(struct channel *ch, struct call *c, struct stream **ret)
{
        struct ssh *s = ch->ssh;
        bool is_answered;
        int r = 0;

        mutex_lock(&s->lock);
        while (!ch->is_answered && (r = call_check(c)) == 0) {
                uint64_t slice = clock_after(SLICE_NS);

                (void)cond_wait_until(&s->changed, &s->lock,
                                      slice < c->deadline_ns ? slice : c->deadline_ns);
        }
        is_answered = ch->is_answered;
        if (is_answered)
                r = ch->error;
        if (r == 0 && ch->is_over) { /* the connection's end came in between */
                r = -EHOSTUNREACH;
                (void)snprintf(ch->sentence, sizeof(ch->sentence), "%s", s->sentence);
        }
        if (r == 0) {
                *ret = &ch->stream;
                ch->is_taken = true;
                ssh_wake_locked(s);
        }
        mutex_unlock(&s->lock);
        if (!is_answered)
                return call_fail_errno(c, r, "%s: open a channel", s->name);
        return r < 0 ? call_fail(c, r, "%s", ch->sentence) : 0;
}

int ssh_open(struct ssh *s, struct call *c, enum ssh_kind kind, const char *what,
             const struct stream_events *events, struct stream **ret)
{
        struct channel *ch = channel_new(s, kind, what, events);
        int r;

        if (!ch)
                return call_fail_errno(c, -ENOMEM, "open a channel");
        mutex_lock(&s->lock);
        r = s->error;
        if (r == 0) {
                list_add_tail(&s->fresh, &ch->link);
                ssh_wake_locked(s);
        }
        mutex_unlock(&s->lock);
        if (r < 0) {
                char why[SSH_SENTENCE_MAX];

                (void)ssh_error(s, why, sizeof(why));
                channel_unref(ch); /* the owner's */
                leave(ch);
                return call_fail(c, -EHOSTUNREACH, "%s", why);
        }
        r = wait_for_answer(ch, c, ret);
        if (r < 0)
                leave(ch);
        return r;
}

/* -- events, from the owner thread; no lock is held while one runs */

static bool begin_event(struct channel *ch, bool is_last)
{
        struct ssh *s = ch->ssh;
        bool may;

        mutex_lock(&s->lock);
        may = ch->is_taken && !ch->is_left && !ch->is_over;
        ch->is_over |= is_last;
        if (may)
                s->in_event = ch;
        mutex_unlock(&s->lock);
        return may;
}

static void end_event(struct channel *ch)
{
        struct ssh *s = ch->ssh;

        mutex_lock(&s->lock);
        s->in_event = NULL;
        if (ch->is_left)
                cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

static void tell_end(struct channel *ch, const struct stream_end *end)
{
        if (begin_event(ch, true)) {
                ch->events.end(ch->events.ctx, end);
                end_event(ch);
        }
}

/* -- opening */

static void answer(struct channel *ch, int error, const char *sentence)
{
        struct ssh *s = ch->ssh;

        mutex_lock(&s->lock);
        ch->error = error;
        (void)snprintf(ch->sentence, sizeof(ch->sentence), "%s", sentence);
        ch->is_answered = true;
        ch->is_over |= error < 0;
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

static bool open_failed(struct channel *ch, int rc, const char *doing)
{
        struct ssh *s = ch->ssh;
        char *text = NULL, why[SSH_SENTENCE_MAX], said[128];

        if (ssh_failed(s, rc, doing))
                return false; /* all are told */
        (void)libssh2_session_last_error(s->sock.session, &text, NULL, 0);
        escape_text(text ? text : "", text ? strlen(text) : 0, said, sizeof(said));
        (void)snprintf(why, sizeof(why), "%s: %s: %s", s->name, doing, said);
        answer(ch, ssh_errno(rc), why);
        ch->state = ch->remote ? CLOSING : GONE;
        return true;
}

static bool ask_channel(struct channel *ch)
{
        struct ssh *s = ch->ssh;
        int rc;

        if (ch->state == WAITING) {
                ch->state = OPENING;
                ch->asked_ns = clock_mono_ns();
                ssh_expect(s);
        }
        ch->remote = libssh2_channel_open_ex(s->sock.session, "session", sizeof("session") - 1,
                                             WINDOW, LIBSSH2_CHANNEL_PACKET_DEFAULT, NULL, 0);
        if (ch->remote) {
                ssh_measured(s, ch->asked_ns);
                ch->state = STARTING;
                return true;
        }
        rc = libssh2_session_last_errno(s->sock.session);
        return rc != LIBSSH2_ERROR_EAGAIN &&
               open_failed(ch, rc < 0 ? rc : LIBSSH2_ERROR_CHANNEL_FAILURE,
                           "the server allows no further channel");
}

static bool ask_program(struct channel *ch)
{
        const char *request = ch->kind == SSH_EXEC ? "exec" : "subsystem";
        int rc = libssh2_channel_process_startup(ch->remote, request, (unsigned)strlen(request),
                                                 ch->what, (unsigned)strlen(ch->what));

        if (rc == LIBSSH2_ERROR_EAGAIN)
                return false;
        if (rc < 0)
                return open_failed(ch, rc,
                                   ch->kind == SSH_EXEC ? "the server runs no commands"
                                                        : "the server has no such subsystem");
        ch->state = OPEN;
        answer(ch, 0, "");
        return true;
}

bool channel_open_step(struct channel *ch)
{
        if (ch->state == STARTING)
                return ask_program(ch);
        if (ch->state == WAITING && !ch->is_wanted) {
                ch->state = GONE; /* its user has left before its turn came */
                return true;
        }
        return ask_channel(ch);
}

/* -- what others have asked for */

void channel_sync_locked(struct channel *ch)
{
        ch->wants_write = !list_is_empty(&ch->pieces);
        ch->wants_eof = ch->has_eof && !ch->sent_eof;
        ch->is_wanted = !ch->is_left;
        if (ch->is_taken && !ch->gets_events) {
                ch->gets_events = true;
                ch->ssh->reads_more = true; /* it may have come already */
        }
        if (ch->is_left && ch->state == OPEN)
                ch->state = CLOSING;
}

/* -- sending */

/* `size` bytes of the first piece are gone. True when the queue has become short. */
static bool sent_locked(struct channel *ch, struct piece *p, size_t size)
{
        bool was_long = ch->queued >= STREAM_QUEUE_LOW;

        p->at += size;
        ch->queued -= size;
        if (p->at == p->size) {
                list_remove(&p->link);
                if (!ch->spare && p->room == PIECE_ROOM)
                        ch->spare = p;
                else
                        free(p);
        }
        ch->wants_write = !list_is_empty(&ch->pieces);
        return was_long && ch->queued < STREAM_QUEUE_LOW;
}

/* Its program takes nothing any more, though it may still print. */
static void go_deaf(struct channel *ch)
{
        mutex_lock(&ch->ssh->lock);
        drop_pieces(&ch->pieces);
        ch->queued = 0;
        ch->has_eof = ch->sent_eof = true;
        ch->wants_write = ch->wants_eof = false;
        mutex_unlock(&ch->ssh->lock);
}

static bool send_eof(struct channel *ch)
{
        int rc = libssh2_channel_send_eof(ch->remote);

        if (rc == LIBSSH2_ERROR_EAGAIN || ssh_failed(ch->ssh, rc, "sending"))
                return false;
        ch->sent_eof = true;
        ch->wants_eof = false;
        return true;
}

bool channel_write_step(struct channel *ch)
{
        struct ssh *s = ch->ssh;
        struct piece *p = NULL;
        size_t size = 0;
        bool is_short;
        ssize_t n;

        mutex_lock(&s->lock);
        if (!list_is_empty(&ch->pieces)) {
                p = list_entry(ch->pieces.next, struct piece, link);
                size = p->size - p->at;
        }
        mutex_unlock(&s->lock);
        if (!p)
                return ch->wants_eof && send_eof(ch);
        n = libssh2_channel_write_ex(ch->remote, 0, p->data + p->at,
                                     size < PACKET_MAX ? size : PACKET_MAX);
        if (n == 0 || n == LIBSSH2_ERROR_EAGAIN)
                return false; /* its window is full */
        if (n < 0) {
                if (!ssh_failed(s, (int)n, "sending"))
                        go_deaf(ch);
                return false;
        }
        ssh_expect(s);
        mutex_lock(&s->lock);
        is_short = sent_locked(ch, p, (size_t)n);
        mutex_unlock(&s->lock);
        if (is_short && ch->events.drained && begin_event(ch, false)) {
                ch->events.drained(ch->events.ctx);
                end_event(ch);
        }
        return true;
}

/* -- receiving */

static const struct {
        const char *name;
        int number;
} signals[] = {
        {"ABRT", SIGABRT}, {"ALRM", SIGALRM}, {"FPE", SIGFPE},   {"HUP", SIGHUP},
        {"ILL", SIGILL},   {"INT", SIGINT},   {"KILL", SIGKILL}, {"PIPE", SIGPIPE},
        {"QUIT", SIGQUIT}, {"SEGV", SIGSEGV}, {"TERM", SIGTERM}, {"USR1", SIGUSR1},
        {"USR2", SIGUSR2},
};

static int signal_number(const char *name)
{
        for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
                if (strcmp(signals[i].name, name) == 0)
                        return signals[i].number;
        return 0;
}

/* libssh2 does not tell a missing status from 0; sshd always sends one, or a signal. */
static void get_end(struct channel *ch, struct stream_end *end)
{
        LIBSSH2_SESSION *session = ch->ssh->sock.session;
        char *name = NULL, *message = NULL, *language = NULL, said[64];

        (void)libssh2_channel_get_exit_signal(ch->remote, &name, NULL, &message, NULL, &language,
                                              NULL); /* no name: no signal */
        if (name) {
                end->signal = signal_number(name);
                escape_text(name, strlen(name), said, sizeof(said));
                if (end->signal == 0) {
                        end->error = -EPROTO;
                        (void)snprintf(end->sentence, sizeof(end->sentence),
                                       "it was ended by a signal of the server's own: %s", said);
                }
        } else {
                end->has_code = true;
                end->code = libssh2_channel_get_exit_status(ch->remote) & 255;
        }
        libssh2_free(session, name);
        libssh2_free(session, message);
        libssh2_free(session, language);
}

/* What has come on one of its two ways out; true when there may be more. */
static bool read_one(struct channel *ch, int number, bool *ret_got_on)
{
        struct ssh *s = ch->ssh;
        ssize_t n = libssh2_channel_read_ex(ch->remote, number, s->data, READ_SIZE);

        if (n < 0 && n != LIBSSH2_ERROR_EAGAIN)
                (void)ssh_failed(s, (int)n, "receiving"); /* else it is closed, which shows */
        if (n <= 0)
                return false;
        *ret_got_on = true;
        if (begin_event(ch, false)) {
                ch->events.data(ch->events.ctx, number == SSH_EXTENDED_DATA_STDERR, s->data,
                                (size_t)n);
                end_event(ch);
        }
        return (size_t)n == READ_SIZE;
}

bool channel_read_step(struct channel *ch)
{
        struct stream_end end = {0};
        bool got_on = false;

        if (!ch->gets_events)
                return false;
        for (int i = 0; i < READS_MAX && read_one(ch, 0, &got_on); i++)
                ;
        for (int i = 0; i < READS_MAX && read_one(ch, SSH_EXTENDED_DATA_STDERR, &got_on); i++)
                ;
        if (ch->ssh->fatal || libssh2_channel_eof(ch->remote) != 1 ||
            libssh2_channel_wait_closed(ch->remote) != 0)
                return got_on;
        get_end(ch, &end);
        tell_end(ch, &end);
        ch->state = CLOSING;
        return true;
}

/* -- the end */

bool channel_close_step(struct channel *ch)
{
        int rc = libssh2_channel_free(ch->remote);

        if (rc == LIBSSH2_ERROR_EAGAIN)
                return false;
        (void)ssh_failed(ch->ssh, rc, "closing a channel");
        ch->remote = NULL;
        ch->state = GONE;
        return true;
}

void channel_abandon(struct channel *ch, int error, const char *sentence)
{
        struct stream_end end = {.error = error};

        (void)snprintf(end.sentence, sizeof(end.sentence), "%s", sentence);
        tell_end(ch, &end);
        if (ch->state < OPEN)
                answer(ch, -EHOSTUNREACH, sentence);
        ch->remote = NULL; /* sock_done frees it with the session */
}
