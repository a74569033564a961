/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection, driven by lines, for test_transport.py. Each command is answered by one line, "ok
 * ..." or "ERRNO sentence"; what happens on a channel is asked for.
 *
 *      probe KEY=VALUE...      connects: host port user known_hosts identity (each several times)
 *                              alias hostkey password agent proxy (one word each) limit (ms);
 *                              prints "ok BANNER" or "ERRNO sentence"
 *      open exec|subsystem WHAT        ok ID
 *      send ID SIZE            that many bytes, in sends of 32 KiB; waits while much is queued
 *      text ID TEXT            and a line end
 *      eof ID
 *      end ID MS               waits for the end: ok code N|signal N|error ERRNO OUT ERR sentence
 *      out ID                  ok and what was printed, as far as it is kept (the first 4 KiB)
 *      bytes ID                ok OUT ERR: how many came, and whether the pattern held
 *      reach ID SIZE MS        waits until SIZE bytes have come: ok NANOSECONDS
 *      close ID                ok NANOSECONDS
 *      limit MS                for what is asked from now on
 *      cancel MS               the next open is cancelled after so long
 *      error                   ok, or why the connection ended
 *      trip                    ok NANOSECONDS
 *      quit                    ok NANOSECONDS of ssh_unref
 */

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"
#include "transport/ssh/ssh.h"

#define CHANNELS_MAX 64
#define KEPT_MAX 4096

struct channel {
        struct stream *stream;
        struct mutex lock;
        struct cond changed;
        uint64_t bytes[2];
        char kept[KEPT_MAX];
        size_t kept_size;
        bool has_end;
        struct stream_end end;
};

static struct channel channels[CHANNELS_MAX];
static unsigned channel_count;
static struct ssh *ssh;
static uint64_t limit_ns = 10 * NS_PER_S;
static uint64_t cancel_ns;

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct channel *ch = ctx;
        size_t keep = size;

        mutex_lock(&ch->lock);
        ch->bytes[is_stderr] += size;
        if (keep > KEPT_MAX - ch->kept_size)
                keep = KEPT_MAX - ch->kept_size;
        memcpy(ch->kept + ch->kept_size, data, keep);
        ch->kept_size += keep;
        cond_broadcast(&ch->changed);
        mutex_unlock(&ch->lock);
}

static void on_drained(void *ctx)
{
        struct channel *ch = ctx;

        mutex_lock(&ch->lock);
        cond_broadcast(&ch->changed);
        mutex_unlock(&ch->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct channel *ch = ctx;

        mutex_lock(&ch->lock);
        ch->end = *end;
        ch->has_end = true;
        cond_broadcast(&ch->changed);
        mutex_unlock(&ch->lock);
}

struct canceller {
        struct call *call;
        uint64_t at_ns;
};

static void *cancel_main(void *arg)
{
        const struct canceller *x = arg;
        uint64_t now = clock_mono_ns();
        struct timespec t = clock_timespec(x->at_ns > now ? x->at_ns - now : 0);

        (void)nanosleep(&t, NULL);
        call_cancel(x->call);
        return NULL;
}

static void answer(int r, const struct call *c)
{
        printf("%s %s\n", errno_name(r), c->sentence);
}

static void do_open(const char *kind, const char *what)
{
        struct channel *ch = &channels[channel_count];
        const struct stream_events events = {on_data, on_drained, on_end, ch};
        struct canceller x;
        struct call c;
        pthread_t thread;
        int r;

        call_init(&c, clock_after(limit_ns));
        x = (struct canceller){&c, clock_after(cancel_ns)};
        mutex_init(&ch->lock);
        cond_init(&ch->changed);
        if (cancel_ns && pthread_create(&thread, NULL, cancel_main, &x) != 0)
                abort();
        r = ssh_open(ssh, &c, strcmp(kind, "exec") == 0 ? SSH_EXEC : SSH_SUBSYSTEM, what, &events,
                     &ch->stream);
        if (cancel_ns)
                (void)pthread_join(thread, NULL);
        cancel_ns = 0;
        if (r < 0)
                answer(r, &c);
        else
                printf("ok %u\n", channel_count++);
}

static void do_send(struct channel *ch, uint64_t size)
{
        static const char zeros[32 << 10];
        uint64_t until = clock_after(limit_ns);
        int r = 0;

        while (size > 0 && r == 0) {
                size_t n = size < sizeof(zeros) ? (size_t)size : sizeof(zeros);

                r = stream_send(ch->stream, zeros, n);
                size -= n;
                mutex_lock(&ch->lock);
                while (r == 0 && stream_queued(ch->stream) > (1u << 20) && !ch->has_end)
                        if (!cond_wait_until(&ch->changed, &ch->lock, until))
                                r = -ETIMEDOUT;
                mutex_unlock(&ch->lock);
        }
        printf("%s\n", r < 0 ? errno_name(r) : "ok");
}

static void do_end(struct channel *ch, uint64_t ms)
{
        uint64_t until = clock_after(ms * NS_PER_MS);
        const struct stream_end *e = &ch->end;

        mutex_lock(&ch->lock);
        while (!ch->has_end && cond_wait_until(&ch->changed, &ch->lock, until))
                ;
        if (!ch->has_end)
                printf("ETIMEDOUT no end\n");
        else if (e->error < 0)
                printf("ok error %s %llu %llu %s\n", errno_name(e->error),
                       (unsigned long long)ch->bytes[0], (unsigned long long)ch->bytes[1],
                       e->sentence);
        else
                printf("ok %s %d %llu %llu\n", e->has_code ? "code" : "signal",
                       e->has_code ? e->code : e->signal, (unsigned long long)ch->bytes[0],
                       (unsigned long long)ch->bytes[1]);
        mutex_unlock(&ch->lock);
}

static void do_out(struct channel *ch)
{
        mutex_lock(&ch->lock);
        printf("ok ");
        for (size_t i = 0; i < ch->kept_size; i++)
                putchar(ch->kept[i] == '\n' ? '|' : ch->kept[i]);
        putchar('\n');
        mutex_unlock(&ch->lock);
}

static void do_reach(struct channel *ch, uint64_t size, uint64_t ms)
{
        uint64_t start = clock_mono_ns(), until = clock_after(ms * NS_PER_MS);
        bool is_late = false;

        mutex_lock(&ch->lock);
        while (ch->bytes[0] + ch->bytes[1] < size && !is_late)
                is_late = !cond_wait_until(&ch->changed, &ch->lock, until);
        mutex_unlock(&ch->lock);
        if (is_late)
                printf("ETIMEDOUT\n");
        else
                printf("ok %llu\n", (unsigned long long)(clock_mono_ns() - start));
}

static void do_close(struct channel *ch)
{
        uint64_t start = clock_mono_ns();

        stream_close(ch->stream);
        ch->stream = NULL;
        printf("ok %llu\n", (unsigned long long)(clock_mono_ns() - start));
}

static void do_text(struct channel *ch, const char *text)
{
        int r = stream_send(ch->stream, text, strlen(text));

        if (r == 0)
                r = stream_send(ch->stream, "\n", 1);
        printf("%s\n", r < 0 ? errno_name(r) : "ok");
}

static void do_error(void)
{
        char text[256] = "";
        int r = ssh_error(ssh, text, sizeof(text));

        printf("%s %s\n", r < 0 ? errno_name(r) : "ok", text);
}

static void obey_channel(const char *verb, char *rest)
{
        struct channel *ch = &channels[strtoul(rest, &rest, 10) % CHANNELS_MAX];
        uint64_t number, ms = 0;

        rest += *rest == ' ';
        number = strtoull(rest, NULL, 10);
        if (strchr(rest, ' '))
                ms = strtoull(strchr(rest, ' '), NULL, 10);
        if (strcmp(verb, "end") == 0)
                do_end(ch, number);
        else if (strcmp(verb, "out") == 0)
                do_out(ch);
        else if (strcmp(verb, "reach") == 0)
                do_reach(ch, number, ms);
        else if (!ch->stream)
                printf("EBADF\n");
        else if (strcmp(verb, "send") == 0)
                do_send(ch, number);
        else if (strcmp(verb, "text") == 0)
                do_text(ch, rest);
        else if (strcmp(verb, "eof") == 0)
                printf("%s\n", stream_send_eof(ch->stream) < 0 ? "EPIPE" : "ok");
        else if (strcmp(verb, "close") == 0)
                do_close(ch);
        else
                printf("EINVAL\n");
}

/* False: quit. */
static bool obey(char *line)
{
        char *rest = line + strcspn(line, " ");

        if (*rest)
                *rest++ = '\0';
        if (strcmp(line, "quit") == 0)
                return false;
        if (strcmp(line, "open") == 0) {
                char *what = strchr(rest, ' ');

                if (what)
                        *what++ = '\0';
                do_open(rest, what ? what : "");
        } else if (strcmp(line, "limit") == 0) {
                limit_ns = strtoull(rest, NULL, 10) * NS_PER_MS;
                printf("ok\n");
        } else if (strcmp(line, "cancel") == 0) {
                cancel_ns = strtoull(rest, NULL, 10) * NS_PER_MS;
                printf("ok\n");
        } else if (strcmp(line, "error") == 0) {
                do_error();
        } else if (strcmp(line, "trip") == 0) {
                printf("ok %llu\n", (unsigned long long)ssh_round_trip(ssh));
        } else {
                obey_channel(line, rest);
        }
        return true;
}

struct options {
        struct ssh_target target;
        const char *known[16], *identities[16], *proxy[32];
        size_t known_count, identity_count, proxy_count;
};

static void set_option(struct options *o, const char *key, const char *value)
{
        struct ssh_target *t = &o->target;

        if (strcmp(key, "host") == 0)
                t->host = value;
        else if (strcmp(key, "port") == 0)
                t->port = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(key, "user") == 0)
                t->user = value;
        else if (strcmp(key, "known_hosts") == 0)
                o->known[o->known_count++] = value;
        else if (strcmp(key, "identity") == 0)
                o->identities[o->identity_count++] = value;
        else if (strcmp(key, "proxy") == 0)
                o->proxy[o->proxy_count++] = value;
        else if (strcmp(key, "alias") == 0)
                t->host_key_alias = value;
        else if (strcmp(key, "hostkey") == 0)
                t->hostkey = value;
        else if (strcmp(key, "password") == 0)
                t->password = value;
        else if (strcmp(key, "agent") == 0)
                t->agent_socket = value;
        else if (strcmp(key, "limit") == 0)
                limit_ns = strtoull(value, NULL, 10) * NS_PER_MS;
        else if (strcmp(key, "cancel") == 0)
                cancel_ns = strtoull(value, NULL, 10) * NS_PER_MS;
        else
                abort();
}

int main(int argc, char **argv)
{
        static struct options o;
        static char line[65536];
        struct canceller x;
        struct call c;
        pthread_t thread = 0;
        uint64_t start;
        int r;

        setlinebuf(stdout);
        log_setup(LOG_LEVEL_DEBUG, "ssh", false);
        for (int i = 1; i < argc; i++) {
                char *value = strchr(argv[i], '=');

                if (!value)
                        return 2;
                *value++ = '\0';
                set_option(&o, argv[i], value);
        }
        o.target.known_hosts = o.known;
        o.target.identities = o.identities;
        o.target.proxy = o.proxy_count ? o.proxy : NULL;
        o.target.uses_agent = o.target.agent_socket != NULL;
        call_init(&c, clock_after(limit_ns));
        x = (struct canceller){&c, clock_after(cancel_ns)};
        if (cancel_ns && pthread_create(&thread, NULL, cancel_main, &x) != 0)
                abort();
        start = clock_mono_ns();
        r = ssh_connect(&o.target, &c, &ssh);
        start = clock_mono_ns() - start;
        if (cancel_ns)
                (void)pthread_join(thread, NULL);
        cancel_ns = 0;
        if (r < 0) {
                answer(r, &c);
                return 1;
        }
        printf("ok %llu %s\n", (unsigned long long)start, ssh_banner(ssh));
        while (fgets(line, sizeof(line), stdin)) {
                line[strcspn(line, "\n")] = '\0';
                if (!obey(line))
                        break;
        }
        start = clock_mono_ns();
        for (unsigned i = 0; i < channel_count; i++)
                stream_close(channels[i].stream);
        ssh_unref(ssh);
        printf("ok %llu\n", (unsigned long long)(clock_mono_ns() - start));
        return 0;
}
