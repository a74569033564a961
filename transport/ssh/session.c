/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of a connection. It alone touches libssh2 once the session is up; the others queue
 * what they want under the lock and wake it by an eventfd. Each turn: what is new, openings, one
 * packet of each channel that has something to send until the socket has enough, what has come for
 * each channel, closings; then it sleeps in poll.
 */

#include "transport/ssh/session.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/log.h"
#include "transport/ssh/errors.h"

#define OUTPUT_MAX ((size_t)128 << 10) /* what waits for the socket: bulk, before small pieces */
#define SMALL ((size_t)32 << 10)
#define ROUNDS_MAX 32 /* packets of one channel in a turn */
#define PROBE_NS (3 * NS_PER_S) /* of silence, while an answer is expected */
#define IDLE_PROBE_NS (30 * NS_PER_S) /* of silence, while channels are open */
#define LATE_NS (2 * NS_PER_S) /* poll is that late: we were stopped, not the server */

void ssh_wake_locked(struct ssh *s)
{
        const uint64_t one = 1;

        s->has_news = true;
        if (s->is_awake)
                return;
        s->is_awake = true;
        /* can't fail: the counter is far from its end */
        (void)!write(s->wake_fd, &one, sizeof(one));
}

void ssh_fail(struct ssh *s, int error, const char *format, ...)
{
        va_list args;

        if (s->fatal != 0)
                return;
        s->fatal = error;
        va_start(args, format);
        (void)vsnprintf(s->reason, sizeof(s->reason), format, args);
        va_end(args);
}

bool ssh_failed(struct ssh *s, int rc, const char *doing)
{
        char *text = NULL;
        char why[128];

        if (!ssh_is_fatal(rc))
                return false;
        if (ssh_errno(rc) == -EHOSTUNREACH) {
                sock_reason(&s->sock, why, sizeof(why));
        } else {
                (void)libssh2_session_last_error(s->sock.session, &text, NULL, 0);
                escape_text(text ? text : "", text ? strlen(text) : 0, why, sizeof(why));
        }
        ssh_fail(s, ssh_errno(rc), "%s: %s: %s", s->name, doing, why);
        return true;
}

void ssh_measured(struct ssh *s, uint64_t since_ns)
{
        uint64_t now = clock_mono_ns() - since_ns, before = atomic_load(&s->round_trip);

        /* What took longer may have waited behind others. */
        atomic_store(&s->round_trip, before == 0    ? now
                                     : now < before ? (before + now) / 2
                                                    : (before * 7 + now) / 8);
}

/* -- one turn */

static int adopt(struct ssh *s, struct channel *ch)
{
        if (s->count == s->room) {
                size_t room = s->room ? s->room * 2 : 16;
                struct channel **more = reallocarray(s->channels, room, sizeof(struct channel *));

                if (!more)
                        return -ENOMEM;
                s->channels = more;
                s->room = room;
        }
        s->channels[s->count++] = ch;
        return 0;
}

/* What others have asked for since the last turn. False: it is to end. */
static bool sync_orders(struct ssh *s)
{
        bool goes_on;

        mutex_lock(&s->lock);
        s->is_awake = true;
        s->has_news = false;
        while (!list_is_empty(&s->fresh)) {
                struct channel *ch = list_entry(s->fresh.next, struct channel, link);

                if (adopt(s, ch) < 0) {
                        ssh_fail(s, -ENOMEM, "%s: out of memory", s->name);
                        break; /* it is told with the others that wait */
                }
                list_remove(&ch->link);
        }
        for (size_t i = 0; i < s->count; i++)
                channel_sync_locked(s->channels[i]);
        goes_on = !s->is_ending;
        mutex_unlock(&s->lock);
        return goes_on && s->fatal == 0;
}

/* Only one channel at a time may be asked for, but any number may be starting. */
static bool open_channels(struct ssh *s)
{
        bool got_on = false, is_opening = false;

        for (size_t i = 0; i < s->count; i++) {
                struct channel *ch = s->channels[i];

                if (ch->state == OPENING || (ch->state == WAITING && !is_opening)) {
                        got_on |= channel_open_step(ch);
                        is_opening |= ch->state == OPENING;
                }
                if (ch->state == STARTING)
                        got_on |= channel_open_step(ch);
        }
        return got_on;
}

/* Much waits until the kernel has little left: what is in its hands can't be overtaken. */
static void flush(struct ssh *s)
{
        size_t size = sock_output(&s->sock);

        if (size > 0 && (size <= SMALL || sock_is_writable(&s->sock)))
                (void)sock_flush(&s->sock); /* a failure shows as the end of the input */
}

/* A packet of each in turn, so that bulk keeps nobody waiting. */
static bool write_channels(struct ssh *s)
{
        bool got_on = false, any = true;

        for (int round = 0; any && round < ROUNDS_MAX; round++) {
                any = false;
                for (size_t i = 0; i < s->count; i++) {
                        struct channel *ch = s->channels[(s->turn + i) % s->count];

                        if (ch->state != OPEN || !(ch->wants_write || ch->wants_eof))
                                continue;
                        if (sock_output(&s->sock) >= OUTPUT_MAX)
                                flush(s);
                        if (sock_output(&s->sock) >= OUTPUT_MAX)
                                return got_on;
                        any |= channel_write_step(ch);
                }
                got_on |= any;
        }
        return got_on;
}

static bool read_channels(struct ssh *s)
{
        uint64_t taken;
        bool got_on = false;

        if (!s->reads_more && s->taken == s->sock.taken && !sock_has_input(&s->sock))
                return false;
        taken = s->sock.taken;
        for (size_t i = 0; i < s->count; i++)
                if (s->channels[i]->state == OPEN)
                        got_on |= channel_read_step(s->channels[i]);
        s->taken = taken;
        s->reads_more = got_on || taken != s->sock.taken;
        return s->reads_more;
}

static void forget_probe(struct ssh *s)
{
        s->probe = NULL;
        s->probe_ns = 0;
        s->is_expectant = true;
}

static bool close_channels(struct ssh *s)
{
        size_t kept = 0;

        for (size_t i = 0; i < s->count; i++) {
                struct channel *ch = s->channels[i];

                if (ch->state == CLOSING)
                        (void)channel_close_step(ch);
                if (ch->state >= CLOSING && ch == s->probe)
                        forget_probe(s); /* its answer may never come */
                if (ch->state == GONE)
                        channel_unref(ch);
                else
                        s->channels[kept++] = ch;
        }
        if (kept == s->count)
                return false;
        s->count = kept;
        return true;
}

/* -- silence */

/*
 * A request on an open channel that every server refuses, and whose refusal libssh2 takes off its
 * queue: the answers to its own keep-alives would stay there for good.
 */
static void probe(struct ssh *s)
{
        int rc;

        for (size_t i = 0; i < s->count && !s->probe; i++)
                if (s->channels[i]->state == OPEN && !libssh2_channel_eof(s->channels[i]->remote))
                        s->probe = s->channels[i];
        if (!s->probe)
                return;
        if (s->probe_ns == 0) {
                s->probe_ns = clock_mono_ns();
                ssh_expect(s);
                s->is_expectant = false; /* what was asked before is answered before this */
        }
        rc = libssh2_channel_setenv_ex(s->probe->remote, "_", 1, "", 0);
        if (rc == LIBSSH2_ERROR_EAGAIN || ssh_failed(s, rc, "keep-alive"))
                return;
        ssh_measured(s, s->probe_ns);
        s->probe = NULL;
        s->probe_ns = 0;
        if (!s->is_expectant)
                s->expects_ns = 0;
}

static bool has_state(const struct ssh *s, enum channel_state state)
{
        for (size_t i = 0; i < s->count; i++)
                if (s->channels[i]->state == state)
                        return true;
        return false;
}

void ssh_expect(struct ssh *s)
{
        s->is_expectant = true;
        if (s->expects_ns == 0)
                s->expects_ns = clock_mono_ns();
}

/* Look whether the server still answers; the time at which to look again. */
static uint64_t watch_silence(struct ssh *s)
{
        uint64_t now = clock_mono_ns(), since = s->sock.heard_ns, due;
        bool is_open = has_state(s, OPEN);

        if (!is_open && !has_state(s, OPENING) && !has_state(s, STARTING)) {
                s->expects_ns = 0; /* nobody waits */
                return NEVER_NS;
        }
        if (since < s->expects_ns)
                since = s->expects_ns;
        if (s->expects_ns != 0 && now >= since + SSH_SILENCE_NS) {
                ssh_fail(s, -ETIMEDOUT, "%s: the server has been silent for %u s", s->name,
                         (unsigned)((now - since) / NS_PER_S));
                return now;
        }
        due = since + (s->expects_ns != 0 ? PROBE_NS : IDLE_PROBE_NS);
        if (is_open && (s->probe_ns != 0 || now >= due)) {
                probe(s);
                flush(s);
                due = s->expects_ns != 0 ? since + SSH_SILENCE_NS : now + IDLE_PROBE_NS;
        }
        return is_open ? due : since + SSH_SILENCE_NS;
}

/* -- the loop */

/* Whether any of libssh2's calls would take what comes in. */
static bool has_reader(const struct ssh *s)
{
        for (size_t i = 0; i < s->count; i++)
                if (s->channels[i]->state != WAITING && s->channels[i]->state != GONE)
                        return true;
        return false;
}

/* Nothing is left to be read, and nothing more will come. */
static void check_end(struct ssh *s)
{
        char why[160];

        if (!s->sock.is_ended || s->sock.in_at < s->sock.in_size)
                return;
        sock_read_log(&s->sock);
        sock_reason(&s->sock, why, sizeof(why));
        ssh_fail(s, -EHOSTUNREACH, "%s: the connection is gone: %s", s->name, why);
}

/* From here on, who has news has to wake us. */
static bool may_sleep(struct ssh *s)
{
        bool may;

        mutex_lock(&s->lock);
        s->is_awake = false;
        may = !s->has_news;
        mutex_unlock(&s->lock);
        return may;
}

static void wait_for_news(struct ssh *s, uint64_t until_ns)
{
        bool reads = has_reader(s);
        struct pollfd fds[3] = {
                {.fd = s->sock.fd, .events = reads ? POLLIN | POLLRDHUP : POLLRDHUP},
                {.fd = s->wake_fd, .events = POLLIN},
                {.fd = s->sock.log_fd, .events = POLLIN},
        };
        uint64_t ignored;

        if (sock_output(&s->sock) > 0)
                fds[0].events |= POLLOUT;
        if (poll(fds, 3, may_sleep(s) ? clock_poll_ms(until_ns) : 0) < 0)
                return;
        if (until_ns != NEVER_NS && clock_mono_ns() > until_ns + LATE_NS)
                s->sock.heard_ns = clock_mono_ns();
        sock_polled(&s->sock, fds[0].revents);
        if (!reads && s->sock.is_readable)
                ssh_fail(s, -EHOSTUNREACH, "%s: the server closed the connection", s->name);
        if (fds[1].revents)
                (void)!read(s->wake_fd, &ignored, sizeof(ignored)); /* only ends the waiting */
        if (fds[2].revents)
                sock_read_log(&s->sock);
}

static bool turn(struct ssh *s)
{
        bool got_on;

        s->sock.turn_left = SOCK_TURN_MAX;
        got_on = open_channels(s);
        got_on |= write_channels(s);
        flush(s);
        got_on |= read_channels(s);
        flush(s); /* window adjustments */
        got_on |= close_channels(s);
        if (s->count > 0)
                s->turn = (s->turn + 1) % s->count;
        return got_on;
}

/* Nobody gets a word any more after this one. */
static void wind_up(struct ssh *s)
{
        if (s->fatal == 0)
                (void)libssh2_session_disconnect(s->sock.session, "bye"); /* polite only */
        flush(s);
        s->sock.is_shut = true;
        mutex_lock(&s->lock);
        s->error = s->fatal ? s->fatal : -EHOSTUNREACH;
        (void)snprintf(s->sentence, sizeof(s->sentence), "%s", s->reason);
        while (!list_is_empty(&s->fresh)) {
                struct channel *ch = list_entry(s->fresh.next, struct channel, link);

                list_remove(&ch->link);
                mutex_unlock(&s->lock);
                channel_abandon(ch, s->error, s->sentence);
                channel_unref(ch);
                mutex_lock(&s->lock);
        }
        mutex_unlock(&s->lock);
        for (size_t i = 0; i < s->count; i++) {
                channel_abandon(s->channels[i], s->error, s->sentence);
                channel_unref(s->channels[i]);
        }
        s->count = 0;
        if (s->fatal)
                log_debug("ssh", "%s", s->reason);
}

static void *owner_main(void *arg)
{
        struct ssh *s = arg;

        for (;;) {
                uint64_t until;

                if (!sync_orders(s))
                        break;
                if (turn(s))
                        continue;
                until = watch_silence(s);
                check_end(s);
                if (s->fatal)
                        break;
                if (sock_has_input(&s->sock) && has_reader(s))
                        until = 0;
                wait_for_news(s, until);
        }
        wind_up(s);
        return NULL;
}

int ssh_start(struct ssh *s)
{
        int r;

        s->sock.is_wiping = false;
        s->data = malloc(READ_SIZE);
        if (!s->data)
                return -ENOMEM;
        r = pthread_create(&s->thread, NULL, owner_main, s);
        s->has_thread = r == 0;
        return -r;
}

/* -- public */

struct ssh *ssh_ref(struct ssh *s)
{
        atomic_fetch_add(&s->refs, 1);
        return s;
}

void ssh_unref(struct ssh *s)
{
        if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
                return;
        if (s->has_thread) {
                assert(!pthread_equal(s->thread, pthread_self())); /* from an event */
                mutex_lock(&s->lock);
                s->is_ending = true;
                ssh_wake_locked(s);
                mutex_unlock(&s->lock);
                (void)pthread_join(s->thread, NULL); /* it waits for nothing but us */
        }
        sock_done(&s->sock);
        dial_proxy_end(&s->proxy);
        if (s->wake_fd >= 0)
                (void)close(s->wake_fd); /* nothing to lose */
        free(s->channels);
        free(s->data);
        free(s->name);
        free(s->banner);
        cond_done(&s->changed);
        mutex_done(&s->lock);
        free(s);
}

int ssh_error(struct ssh *s, char *sentence, size_t size)
{
        int error;

        mutex_lock(&s->lock);
        error = s->error;
        if (error && sentence && size > 0)
                (void)snprintf(sentence, size, "%s", s->sentence);
        mutex_unlock(&s->lock);
        return error;
}

uint64_t ssh_round_trip(const struct ssh *s)
{
        return atomic_load(&s->round_trip);
}

const char *ssh_banner(const struct ssh *s)
{
        return s->banner;
}
