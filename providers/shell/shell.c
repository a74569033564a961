/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One script as it goes to a helper, T being its 128 random bits (frame.h):
 *
 *      { printf '%s\n' T; ( LC_ALL=C; export LC_ALL; SCRIPT
 *      ) </dev/null; printf '\nT %s\n' $?; printf '\nT\n' >&2; }
 *
 * A compound command is read whole before any of it runs: one that a dying connection cut off does
 * nothing.
 */

#include "providers/shell/shell.h"

#include <errno.h>
#include <stdlib.h>

#include "providers/shell/helper.h"
#include "transport/base/cleanup.h"

/* ---- one script ---- */

static int compose(const struct run *run, const char *script, struct buf *to)
{
        return buf_addf(to,
                        "{ printf '%%s\\n' %s; ( LC_ALL=C; export LC_ALL\n%s\n) </dev/null; "
                        "printf '\\n%s %%s\\n' $?; printf '\\n%s\\n' >&2; }\n",
                        run->token, script, run->token, run->token);
}

static void say_stderr(struct run *run, struct call *c)
{
        char *text;
        size_t size = run->err.size;

        if (run->code == 0 || size == 0)
                return;
        text = run->err.data;
        while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
                size--;
        (void)call_fail(c, -EIO, "%.*s", (int)size, text); /* the sentence only */
}

static int run_on(struct helper *p, struct run *run, struct call *c, const struct buf *text)
{
        int r;

        p->heard_ns = 0;
        r = stream_send(p->stream, text->data, text->size);
        if (r < 0) {
                helper_let_go(p, false);
                return r == -EPIPE ? -EPIPE : call_fail_errno(c, r, "the host's shell");
        }
        r = helper_wait(p, c);
        if (r == 0 && run->error < 0)
                r = run->error;
        helper_let_go(p, r == 0 && run_is_complete(run));
        return r;
}

static int run_script(struct shell *s, struct call *c, struct run *run, const struct buf *text)
{
        struct helper *p = NULL;
        int r = -EPIPE;

        /* -EPIPE: it was dead before anything was sent. */
        for (unsigned i = 0; i < SHELL_COUNT_MAX + 1 && r == -EPIPE; i++) {
                r = helper_take(s, c, HELPER_SCRIPTS, run, &p);
                if (r == 0 && p)
                        r = run_on(p, run, c, text);
        }
        return r == -EPIPE ? call_fail(c, -EHOSTUNREACH, "the connection ended") : r;
}

int shell_run(struct shell *s, struct call *c, const char *script, struct shell_sink *to,
              int *ret_code)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(HELPER_SCRIPT_MAX);
        struct run run;
        int r = run_init(&run, to);

        if (r == 0)
                r = compose(&run, script, &text);
        if (r < 0)
                r = call_fail_errno(c, r, "a script for the host");
        else
                r = run_script(s, c, &run, &text);
        if (r == 0) {
                say_stderr(&run, c);
                *ret_code = run.code;
        }
        run_done(&run);
        return r;
}

struct buf_sink {
        struct shell_sink sink;
        struct buf *out;
};

static int add_to_buf(struct shell_sink *to, const void *data, size_t size)
{
        struct buf_sink *b = container_of(to, struct buf_sink, sink);

        return b->out ? buf_add(b->out, data, size) : 0;
}

int shell_run_buf(struct shell *s, struct call *c, const char *script, struct buf *out,
                  int *ret_code)
{
        struct buf_sink to = {.sink = {.data = add_to_buf}, .out = out};
        int r = shell_run(s, c, script, &to.sink, ret_code);

        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "what the host's shell said") : r;
}

/* ---- life ---- */

int shell_new(struct shell_opener *opener, struct shell **ret)
{
        struct shell *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        s->opener = opener;
        for (unsigned i = 0; i < HELPER_KINDS; i++)
                list_init(&s->helpers[i]);
        mutex_init(&s->lock);
        cond_init(&s->changed);
        *ret = s;
        return 0;
}

void shell_free(struct shell *s)
{
        if (!s)
                return;
        for (unsigned i = 0; i < HELPER_KINDS; i++)
                helper_bury(&s->helpers[i]);
        cond_done(&s->changed);
        mutex_done(&s->lock);
        free(s);
}
