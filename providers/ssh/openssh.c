/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/openssh.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/alias.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"
#include "transport/child.h"

#define GAVE_UP 255

struct client {
        struct stream stream;
        struct stream *child; /* fixed once it's open; events don't need it */
        struct stream_events events;
        bool is_subsystem;
        /* the child's thread's: what came on standard error, its beginning */
        char said[sizeof(((struct stream_end *)NULL)->sentence)];
        size_t said_size;
};

static struct client *client_of(struct stream *s)
{
        return container_of(s, struct client, stream);
}

/* The client has one code for all that went wrong, and a sentence. */
static int explain(const char *said)
{
        static const struct {
                const char *words;
                int error;
        } all[] = {{"Host key verification failed", -EPERM},
                   {"host key is known", -EPERM},
                   {"Permission denied", -EACCES},
                   {"Too many authentication failures", -EACCES},
                   {"timed out", -ETIMEDOUT},
                   {"request failed on channel", -EOPNOTSUPP}}; /* exec or subsystem */

        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
                if (strcasestr(said, all[i].words))
                        return all[i].error;
        return -EHOSTUNREACH;
}

/* ---- events ---- */

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct client *p = ctx;

        if (is_stderr) {
                size_t room = sizeof(p->said) - 1 - p->said_size;
                size_t part = size < room ? size : room;

                memcpy(p->said + p->said_size, data, part);
                p->said_size += part;
        }
        p->events.data(p->events.ctx, is_stderr, data, size);
}

static void on_drained(void *ctx)
{
        struct client *p = ctx;

        if (p->events.drained)
                p->events.drained(p->events.ctx);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct client *p = ctx;
        struct stream_end lost = {.error = explain(p->said)};

        if (!end->has_code || end->code != GAVE_UP) {
                p->events.end(p->events.ctx, end);
                return;
        }
        /* A file channel adds by itself what came on standard error. */
        if (!p->is_subsystem)
                (void)snprintf(lost.sentence, sizeof(lost.sentence), "%.*s",
                               (int)strcspn(p->said, "\r\n"), p->said);
        p->events.end(p->events.ctx, &lost);
}

/* ---- the stream ---- */

static int client_send(struct stream *s, const void *data, size_t size)
{
        return stream_send(client_of(s)->child, data, size);
}

static int client_send_eof(struct stream *s)
{
        return stream_send_eof(client_of(s)->child);
}

static size_t client_queued(struct stream *s)
{
        return stream_queued(client_of(s)->child);
}

static void client_close(struct stream *s)
{
        struct client *p = client_of(s);

        stream_close(p->child);
        free(p);
}

static const struct stream_ops ops = {
        .send = client_send,
        .send_eof = client_send_eof,
        .queued = client_queued,
        .close = client_close,
};

int openssh_open(const struct ssh_config *config, enum openssh_use use, const char *socket,
                 const char *command, struct call *c, const struct stream_events *events,
                 struct stream **ret)
{
        _cleanup_(wordlist_done) struct wordlist argv = {0}, env = {0};
        _cleanup_(freep) struct client *p = calloc(1, sizeof(*p));
        const struct stream_events ours = {
                .data = on_data, .drained = on_drained, .end = on_end, .ctx = p};
        int r = p ? ssh_config_openssh(config, use, socket, command, &argv) : -ENOMEM;

        if (r == 0)
                r = alias_environment(&env);
        if (r < 0 || !p)
                return call_fail_errno(c, r, "ssh %s", config->host);
        p->stream.ops = &ops;
        p->events = *events;
        p->is_subsystem = !command;
        r = child_open(SSH_PROGRAM, wordlist_get(&argv), wordlist_get(&env), &ours, c, &p->child);
        if (r == 0)
                *ret = &STEAL(p)->stream;
        return r;
}
