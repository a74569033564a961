/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to a sandbox's toolbox; see toolbox.h. */

#include "providers/daytona/toolbox.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "providers/daytona/api.h"
#include "providers/daytona/states.h"
#include "providers/quote.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/json.h"
#include "transport/http/url.h"

#define SDK_VERSION "0.205.1" /* decides how newer daemons answer */
#define LATE_NS (10 * NS_PER_S) /* how long what should run may be missing */
#define STEP_NS (100 * NS_PER_MS)
#define STEP_MAX_NS NS_PER_S
#define RUN_S 60
#define COMMAND_MAX ((size_t)64 << 10)
#define SAID_MAX 400

int daytona_toolbox_new(const struct daytona_provider *d, const char *id, const char *url,
                        struct call *c, struct http **ret)
{
        _cleanup_(buf_done) struct buf whole = BUF_INIT(HTTP_PATH_MAX);
        const struct http_header headers[] = {
                {.name = "Authorization", .value = d->config.bearer, .is_secret = true},
                {.name = "X-Daytona-Source", .value = "sbxfs"},
                {.name = "X-Daytona-SDK-Version", .value = SDK_VERSION},
                {.name = "Accept", .value = "*/*"},
                {.name = "X-Daytona-Organization-ID", .value = d->config.organization},
        };
        struct http_config hc = {.name = d->remote.base.instance,
                                 .plain_host = d->config.plain_host,
                                 .ca_file = d->config.ca_file,
                                 .headers = headers,
                                 .header_count = d->config.organization ? 5 : 4,
                                 .probe_path = "/version",
                                 .explain = daytona_explain};
        size_t size = strlen(url);
        int r;

        while (size > 0 && url[size - 1] == '/')
                size--;
        r = buf_add(&whole, url, size);
        if (r == 0)
                r = url_add_segment(&whole, id);
        if (r < 0)
                return call_fail_errno(c, r, "the address of the sandbox");
        hc.url = buf_str(&whole);
        return http_new(&hc, c, ret);
}

/* ---- asked again ---- */

/* A moment, longer each time; -EINTR, -ETIMEDOUT. */
static int rest(struct call *c, struct again *a)
{
        struct timespec t = clock_timespec(a->step_ns);

        (void)nanosleep(&t, NULL);
        a->step_ns = a->step_ns * 2 < STEP_MAX_NS ? a->step_ns * 2 : STEP_MAX_NS;
        return call_check(c);
}

/* It said that it isn't there: 0 it should be. -EHOSTDOWN, -ENODEV. */
static int ask_why(struct daytona_box *b, struct call *c)
{
        struct box_status status;
        struct call quiet;
        int r;

        call_init(&quiet, c->deadline_ns);
        r = remote_look(&b->remote, &quiet, &status);
        if (r == -ENODEV || (r == 0 && status.state == BOX_GONE))
                return call_fail(c, -ENODEV, "the sandbox is gone");
        if (r == 0 && (status.state == BOX_PAUSED || status.state == BOX_STOPPED ||
                       status.state == BOX_ERROR))
                return call_fail(c, -EHOSTDOWN, "the sandbox is %s", box_state_name(status.state));
        return 0;
}

int daytona_toolbox_again(struct daytona_box *b, struct call *c, int r,
                          const struct http_reply *reply, struct again *a)
{
        int why;

        if (a->until_ns == 0)
                *a = (struct again){clock_after(LATE_NS), STEP_NS};
        if (!daytona_is_not_there_yet(reply->status, buf_str(&reply->body), reply->body.size) ||
            clock_mono_ns() >= a->until_ns)
                return r == -EBUSY || r == -ENODEV ? -EIO : r;
        why = ask_why(b, c);
        return why == 0 ? rest(c, a) : why;
}

int daytona_toolbox_do(struct daytona_box *b, struct call *c, struct http_request *q,
                       struct http_reply *reply, struct json **ret)
{
        static const struct http_header skip = DAYTONA_SKIP;
        struct again a = {0};
        struct http *h;
        int r = daytona_toolbox(b, c, &h);

        if (r < 0)
                return r;
        if (!q->headers) {
                q->headers = &skip;
                q->header_count = 1;
        }
        do {
                r = ret ? http_do_json(h, c, q, reply, ret) : http_do(h, c, q, reply);
                if (r >= 0)
                        return r;
                r = daytona_toolbox_again(b, c, r, reply, &a);
        } while (r == 0);
        return r;
}

/* ---- a short program ---- */

/*
 * One line for whatever shell is there, or for the splitter of old daemons, that knows quotes only:
 * the program gets no input, which is the line itself.
 */
static int command_of(const struct remote_program *p, struct buf *to)
{
        const char *const words[] = {"sh", "-c", "exec </dev/null; exec \"$0\" \"$@\"", NULL};
        const size_t env_max = sizeof(p->env) / sizeof(p->env[0]);
        int r = quote_add_words(to, words);

        if (r == 0)
                r = buf_add_str(to, " env");
        for (size_t i = 0; r == 0 && i < env_max && p->env[i][0]; i++) {
                char both[256];

                (void)snprintf(both, sizeof(both), "%s=%s", p->env[i][0], p->env[i][1]);
                r = buf_add_char(to, ' ');
                if (r == 0)
                        r = quote_add(to, both);
        }
        if (r == 0)
                r = buf_add_char(to, ' ');
        return r == 0 ? quote_add_words(to, p->argv) : r;
}

static int body_of(const struct remote_program *p, struct buf *to)
{
        _cleanup_(buf_wipe) struct buf command = BUF_INIT(COMMAND_MAX);
        int r = command_of(p, &command);

        if (r == 0)
                r = buf_add_str(to, "{\"command\":");
        if (r == 0)
                r = json_add_string(to, buf_str(&command));
        if (r == 0 && p->cwd)
                r = buf_add_str(to, ",\"cwd\":");
        if (r == 0 && p->cwd)
                r = json_add_string(to, p->cwd);
        return r == 0 ? buf_addf(to, ",\"timeout\":%d}", RUN_S) : r;
}

/* Both outputs are one text; that of a failure is the reason. */
static int ended(struct call *c, const struct json *j, struct buf *out, int *ret_code)
{
        const char *said = json_string(json_get(j, "result"));
        char text[SAID_MAX];
        int64_t code;

        if (!json_integer(json_get(j, "exitCode"), &code) &&
            !json_integer(json_get(j, "code"), &code)) /* of old */
                return call_fail(c, -EPROTO, "the toolbox doesn't say how a program has ended");
        if (!said)
                said = "";
        *ret_code = code >= 0 && code <= 255 ? (int)code : 255;
        if (*ret_code != 0) {
                escape_text(said, strlen(said), text, sizeof(text));
                (void)call_fail(c, -EIO, "%s", text); /* for who takes that code for a failure */
        } else if (out && buf_add_str(out, said) < 0) {
                return call_fail(c, -EPROTO, "a program in the sandbox said too much");
        }
        return 0;
}

int daytona_run(struct remote_box *b, struct call *c, const char *user,
                const struct remote_program *p, struct buf *out, int *ret_code)
{
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(2 * COMMAND_MAX);
        struct http_request q = {.method = "POST",
                                 .path = "/process/execute",
                                 .silence_ns = (RUN_S + 10) * NS_PER_S,
                                 .all_ns = NEVER_NS,
                                 .is_idempotent = true}; /* ours bear it */
        int r = body_of(p, &body);

        (void)user; /* the toolbox's own is the only one */
        if (r < 0)
                return call_fail_errno(c, r, "a program in the sandbox");
        q.data = body.data;
        q.size = body.size;
        for (unsigned i = 0;; i++) {
                _cleanup_(http_reply_done) struct http_reply reply = {0};
                _cleanup_(json_freep) struct json *j = NULL;

                if (out)
                        buf_clear(out);
                r = daytona_toolbox_do(daytona_box_of(b), c, &q, &reply, &j);
                if (r == 0)
                        r = ended(c, j, out, ret_code);
                if (i + 1 == HTTP_TRIES || !remote_is_passing(r) || call_check(c) < 0)
                        return r;
        }
}

/* ---- files ---- */

/* By the call that makes directories as others can enter them. */
int daytona_upload(struct remote_box *b, struct call *c, const char *user, const char *to,
                   struct http_source *from)
{
        static const char zshrc[] = DAYTONA_DIR "/.zshrc";
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        const struct http_part parts[] = {
                {.name = "files[0].path", .data = to, .size = strlen(to)},
                {.name = "files[0].file",
                 .file_name = "file",
                 .type = "application/octet-stream",
                 .source = from},
                /* zsh has questions for a newcomer whose home has none of its files */
                {.name = "files[1].path", .data = zshrc, .size = sizeof(zshrc) - 1},
                {.name = "files[1].file",
                 .file_name = "file",
                 .type = "application/octet-stream",
                 .data = "\n",
                 .size = 1},
        };
        bool is_ours = strncmp(to, DAYTONA_DIR, strlen(DAYTONA_DIR)) == 0;
        struct http_request q = {.method = "POST",
                                 .path = "/files/bulk-upload",
                                 .parts = parts,
                                 .part_count = is_ours ? 4 : 2,
                                 .all_ns = NEVER_NS,
                                 .is_idempotent = true};

        (void)user; /* the toolbox's own is the only one */
        return daytona_toolbox_do(daytona_box_of(b), c, &q, &reply, NULL);
}

int daytona_download(struct remote_box *b, struct call *c, const char *user, const char *from,
                     const struct http_range *range, struct http_sink *sink)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        struct http_request q = {.range = range, .sink = sink};
        int r = url_add(&path, "/files/download");

        (void)user;
        if (r == 0)
                r = url_add_query(&path, "path", from);
        if (r < 0)
                return call_fail_errno(c, r, "a request");
        q.path = buf_str(&path);
        return daytona_toolbox_do(daytona_box_of(b), c, &q, &reply, NULL);
}
