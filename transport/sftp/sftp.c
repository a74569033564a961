/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a connection: its stream's events, the greeting, its end. */

#include "transport/sftp/sftp.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/sftp/private.h"

#define WAIT_STEP_NS (100 * NS_PER_MS)

/* ---- what the stream brings ---- */

/* The end of what is said on standard error: why a connection failed, mostly. */
static void keep_said_locked(struct sftp *s, const char *text, size_t size) REQUIRES(s->lock)
{
        size_t room = sizeof(s->said) - 1;
        size_t have = strlen(s->said);

        if (size > room) {
                text += size - room;
                size = room;
        }
        if (have + size > room) {
                memmove(s->said, s->said + have + size - room, room - size);
                have = room - size;
        }
        for (size_t i = 0; i < size; i++)
                s->said[have++] = text[i] && text[i] != '\n' && text[i] != '\r' ? text[i] : ' ';
        s->said[have] = '\0';
}

/* A host whose shell prints something at every login says it first. */
static void refuse_greeting_locked(struct sftp *s, const void *data, size_t size) REQUIRES(s->lock)
{
        char text[100];

        escape_text(data, size < 60 ? size : 60, text, sizeof(text));
        engine_fail_locked(s, -EPROTO,
                           "what the host sends first is not SFTP (does a start-up file of the "
                           "shell print it?): %s",
                           text);
}

static int greet_locked(struct sftp *s, const unsigned char *packet, size_t size) REQUIRES(s->lock)
{
        uint32_t version;
        int r = wire_read_version(packet, size, &version, &s->features);

        if (r < 0)
                return r;
        if (version != 3) {
                engine_fail_locked(s, -EPROTO, "the server speaks version %u of SFTP, not 3",
                                   version);
                return 0;
        }
        s->life = LIFE_READY;
        cond_broadcast(&s->changed);
        return s->features & SFTP_CAN_LIMITS ? engine_ask_limits_locked(s) : 0;
}

static int take_packets_locked(struct sftp *s, const void *data, size_t size) REQUIRES(s->lock)
{
        const unsigned char *at = data;
        const unsigned char *packet;
        size_t packet_size;
        int r = 0;

        while (s->life != LIFE_DEAD &&
               (r = wire_in_next(&s->in, &at, &size, &packet, &packet_size)) > 0) {
                r = s->life == LIFE_GREETING ? greet_locked(s, packet, packet_size)
                                             : engine_answer_locked(s, packet, packet_size);
                if (r < 0)
                        break;
        }
        return r;
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct sftp *s = ctx;
        int r = 0;

        mutex_lock(&s->lock);
        if (is_stderr) {
                keep_said_locked(s, data, size);
        } else if (s->life != LIFE_DEAD) {
                atomic_store(&s->heard_ns, clock_mono_ns());
                if (s->life != LIFE_NEW)
                        r = take_packets_locked(s, data, size);
                if (s->life == LIFE_NEW || (r == -EPROTO && s->life == LIFE_GREETING))
                        refuse_greeting_locked(s, data, size);
                else if (r == -ENOMEM)
                        engine_fail_locked(s, r, "out of memory");
                else if (r < 0)
                        engine_fail_locked(s, r, "the SFTP server broke its protocol");
                engine_run_locked(s);
        }
        mutex_unlock(&s->lock);
}

static void on_drained(void *ctx)
{
        struct sftp *s = ctx;

        mutex_lock(&s->lock);
        if (s->life == LIFE_READY)
                engine_run_locked(s);
        mutex_unlock(&s->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct sftp *s = ctx;
        const char *joint;

        mutex_lock(&s->lock);
        joint = s->said[0] ? ": " : "";
        if (end->error)
                engine_fail_locked(s, end->error, "%s%s%s",
                                   end->sentence[0] ? end->sentence : "the connection ended", joint,
                                   s->said);
        else if (end->signal)
                engine_fail_locked(s, -EHOSTUNREACH, "the SFTP server ended by signal %d%s%s",
                                   end->signal, joint, s->said);
        else
                engine_fail_locked(s, -EHOSTUNREACH, "the SFTP server ended with code %d%s%s",
                                   end->code, joint, s->said);
        engine_run_locked(s);
        mutex_unlock(&s->lock);
}

/* ---- life ---- */

int sftp_new(struct sftp **ret)
{
        struct sftp *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        atomic_init(&s->refs, 1);
        s->events = (struct stream_events){
                .data = on_data, .drained = on_drained, .end = on_end, .ctx = s};
        mutex_init(&s->lock);
        cond_init(&s->changed);
        s->piece_max = PIECE_USUAL;
        wire_in_init(&s->in);
        s->out = BUF_INIT(1u << 20);
        list_init(&s->lines[LINE_METADATA]);
        list_init(&s->lines[LINE_BULK]);
        list_init(&s->ended);
        for (unsigned i = 0; i < SLOTS; i++) {
                s->slots[i].id = i;
                s->free_slots[i] = (uint16_t)(SLOTS - 1 - i);
        }
        s->free_count = SLOTS;
        *ret = s;
        return 0;
}

struct sftp *sftp_ref(struct sftp *s)
{
        atomic_fetch_add(&s->refs, 1);
        return s;
}

void sftp_unref(struct sftp *s)
{
        if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
                return;
        stream_close(s->stream);
        mutex_lock(&s->lock);
        engine_fail_locked(s, -EHOSTUNREACH, "closed"); /* frees what nobody waits for */
        assert(list_is_empty(&s->ended));
        mutex_unlock(&s->lock);
        wire_in_done(&s->in);
        buf_done(&s->out);
        cond_done(&s->changed);
        mutex_done(&s->lock);
        free(s);
}

const struct stream_events *sftp_events(struct sftp *s)
{
        return &s->events;
}

static int wait_ready_locked(struct sftp *s, struct call *c) REQUIRES(s->lock)
{
        while (s->life == LIFE_GREETING) {
                uint64_t step_ns = clock_after(WAIT_STEP_NS);
                int r = call_check(c);

                if (r < 0)
                        return call_fail(c, r, "no greeting from the SFTP server");
                (void)cond_wait_until(&s->changed, &s->lock,
                                      step_ns < c->deadline_ns ? step_ns : c->deadline_ns);
        }
        return s->life == LIFE_READY ? 0 : call_fail(c, s->error, "%s", s->sentence);
}

int sftp_start(struct sftp *s, struct call *c, struct stream *stream, bool is_ordered)
{
        int r;

        mutex_lock(&s->lock);
        assert(!s->stream);
        s->stream = stream;
        s->is_ordered = is_ordered;
        if (is_ordered)
                s->piece_max = WIRE_PIECE_MAX; /* OpenSSH takes it, of any age */
        r = wire_add_init(&s->out);
        if (r == 0 && s->life == LIFE_NEW) {
                s->life = LIFE_GREETING;
                r = stream_send(stream, s->out.data, s->out.size);
                buf_clear(&s->out);
        }
        if (r == 0 || r == -EPIPE) /* its end says more */
                r = wait_ready_locked(s, c);
        else
                r = call_fail_errno(c, r, "greet the SFTP server");
        mutex_unlock(&s->lock);
        return r;
}

/* ---- facts ---- */

int sftp_error(struct sftp *s, char *sentence, size_t size)
{
        int r = 0;

        mutex_lock(&s->lock);
        if (s->life == LIFE_DEAD) {
                r = s->error;
                (void)snprintf(sentence, size, "%s", s->sentence); /* may be cut */
        }
        mutex_unlock(&s->lock);
        return r;
}

unsigned sftp_features(struct sftp *s)
{
        unsigned features;

        mutex_lock(&s->lock);
        features = s->features;
        mutex_unlock(&s->lock);
        return features;
}

bool sftp_is_ordered(const struct sftp *s)
{
        return s->is_ordered;
}

uint64_t sftp_heard_ns(const struct sftp *s)
{
        return atomic_load(&s->heard_ns);
}

bool sftp_is_waiting(struct sftp *s)
{
        bool is_waiting;

        mutex_lock(&s->lock);
        is_waiting = s->in_flight[LINE_METADATA] + s->in_flight[LINE_BULK] > 0;
        mutex_unlock(&s->lock);
        return is_waiting;
}

uint32_t sftp_piece_max(struct sftp *s)
{
        uint32_t max;

        mutex_lock(&s->lock);
        max = s->piece_max;
        mutex_unlock(&s->lock);
        return max;
}
