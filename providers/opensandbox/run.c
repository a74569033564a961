/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Short commands in a sandbox. execd holds the connection for a second after the end was told, so
 * it is closed at once.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/opensandbox/body.h"
#include "providers/opensandbox/events.h"
#include "providers/opensandbox/execd.h"
#include "providers/opensandbox/program.h"
#include "providers/quote.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"

#define COMMAND_MAX ((size_t)100 << 10) /* it is one word of a command line there: 128 KiB */
#define BODY_MAX (2 * COMMAND_MAX + 4096)
#define SILENCE_NS (30 * NS_PER_S) /* it pings every 3 s */
#define ANSWER_MAX ((uint64_t)16 << 20)
#define IDS_MAX 64

int osb_command_line(const struct remote_program *p, bool is_exec, struct buf *to)
{
        const size_t env_max = sizeof(p->env) / sizeof(p->env[0]);
        int r = p->cwd ? quote_addf(to, "cd %s && ", p->cwd) : 0;

        for (size_t i = 0; r == 0 && i < env_max && p->env[i][0]; i++) {
                r = buf_addf(to, "export %s=", p->env[i][0]);
                if (r == 0)
                        r = quote_addf(to, "%s; ", p->env[i][1]);
        }
        if (r == 0 && is_exec)
                r = buf_add_str(to, "exec ");
        return r == 0 ? quote_add_words(to, p->argv) : r;
}

/* ---- one command ---- */

struct intake {
        struct http_sink sink;
        struct osb_events events;
};

static int write_events(struct http_sink *to, const void *data, size_t size)
{
        int r = osb_events_feed(&container_of(to, struct intake, sink)->events, data, size);

        return r > 0 ? -ECANCELED : r; /* all was told: no more is wanted */
}

static int ended(struct call *c, const struct osb_events *e, int *ret_code)
{
        char said[2 * OSB_SAID_MAX];

        if (e->error < 0)
                return call_fail(c, e->error, "%s", e->sentence);
        if (e->is_long)
                return call_fail(c, -EPROTO, "a command in the sandbox said too much");
        c->sentence[0] = '\0';
        *ret_code = e->code;
        if (e->code != 0) {
                escape_text(e->said, strlen(e->said), said, sizeof(said));
                (void)call_fail(c, -EIO, "%s", said); /* for who takes that code for a failure */
        }
        return 0;
}

static int run_once(struct osb_box *b, struct call *c, const struct buf *body, struct buf *out,
                    int *ret_code)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        struct intake in = {.sink = {.write = write_events}};
        const struct http_request q = {.method = "POST",
                                       .path = "/command",
                                       .data = body->data,
                                       .size = body->size,
                                       .sink = &in.sink,
                                       .size_max = ANSWER_MAX,
                                       .silence_ns = SILENCE_NS,
                                       .all_ns = NEVER_NS};
        int r;

        osb_events_init(&in.events, out);
        r = osb_execd_do(b, c, &q, &reply);
        if (r == 0)
                osb_events_finish(&in.events);
        if (r == 0 || r == -ECANCELED)
                r = ended(c, &in.events, ret_code);
        osb_events_done(&in.events);
        return r;
}

static int run_line(struct osb_box *b, struct call *c, const struct osb_owner *as, const char *line,
                    struct buf *out, int *ret_code)
{
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(BODY_MAX);
        int r = osb_command_body(line, as, &body);

        if (r < 0)
                return call_fail_errno(c, r, "a command in the sandbox");
        r = -EIO;
        for (unsigned i = 0;
             i < HTTP_TRIES && remote_is_passing(r) && (i == 0 || call_check(c) == 0); i++) {
                if (out)
                        buf_clear(out);
                r = run_once(b, c, &body, out, ret_code);
        }
        return r;
}

/* ---- as somebody else ---- */

/* execd takes numbers only. */
static int find_user(struct osb_box *b, struct call *c, const char *user, struct osb_owner *ret)
{
        _cleanup_(buf_done) struct buf line = BUF_INIT(256), said = BUF_INIT(IDS_MAX);
        int code = 0, r = quote_addf(&line, "id -u %s && id -g %s", user, user);

        if (strspn(user, "0123456789") == strlen(user) && strlen(user) < 10) {
                *ret = (struct osb_owner){.uid = (uint32_t)strtoul(user, NULL, 10),
                                          .gid = (uint32_t)strtoul(user, NULL, 10)};
                return 0;
        }
        if (r < 0)
                return call_fail_errno(c, r, "a command in the sandbox");
        r = run_line(b, c, NULL, buf_str(&line), &said, &code);
        if (r < 0)
                return r;
        if (code != 0 ||
            sscanf(buf_str(&said), "%9" SCNu32 " %9" SCNu32, &ret->uid, &ret->gid) != 2)
                return call_fail(c, -EINVAL, "no such user in the sandbox: %.60s", user);
        return 0;
}

int osb_program_run(struct remote_box *remote, struct call *c, const char *user,
                    const struct remote_program *p, struct buf *out, int *ret_code)
{
        struct osb_box *b = osb_box_of(remote);
        _cleanup_(buf_wipe) struct buf line = BUF_INIT(COMMAND_MAX);
        struct osb_owner owner;
        bool is_own = !user || strcmp(user, REMOTE_ROOT) == 0;
        int r = osb_command_line(p, false, &line);

        if (r < 0)
                return call_fail_errno(c, r, "a command in the sandbox");
        if (!is_own)
                r = find_user(b, c, user, &owner);
        return r < 0 ? r : run_line(b, c, is_own ? NULL : &owner, buf_str(&line), out, ret_code);
}
