/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/shell/helper.h"

#include <errno.h>
#include <stdlib.h>

#define ANOTHER_NS (20 * NS_PER_MS) /* all were busy this long: another one */
#define STREAM_HELPERS_MAX 2
#define STREAM_AGAIN_NS                                                                            \
        (60 * NS_PER_S) /* the host had no channel left for one: not again until then */
#define ROOM_WAIT_NS (5 * NS_PER_S) /* until somebody has made room for one more */

static void helper_free(struct helper *p)
{
        stream_close(p->stream);
        free(p);
}

/* ---- from the stream's thread ---- */

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct helper *p = ctx;
        struct run *run;

        mutex_lock(&p->shell->lock);
        run = p->is_done ? NULL : p->run;
        mutex_unlock(&p->shell->lock);
        if (!run)
                return; /* nobody asked */
        if (is_stderr)
                run_take_err(run, data, size);
        else
                run_take_out(run, data, size);
        mutex_lock(&p->shell->lock);
        if (run->has_moved)
                p->heard_ns = clock_mono_ns();
        run->has_moved = false;
        if (run->error != 0 || run_is_complete(run)) {
                p->is_done = true;
                cond_broadcast(&p->shell->changed);
        }
        mutex_unlock(&p->shell->lock);
}

static void on_drained(void *ctx)
{
        struct helper *p = ctx;

        mutex_lock(&p->shell->lock);
        p->drains++;
        cond_broadcast(&p->shell->changed);
        mutex_unlock(&p->shell->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct helper *p = ctx;

        mutex_lock(&p->shell->lock);
        p->has_ended = true;
        p->end = *end;
        cond_broadcast(&p->shell->changed);
        mutex_unlock(&p->shell->lock);
}

/* ---- one more ---- */

/*
 * For the account's own shell, whichever it is: nothing that csh or fish would read otherwise. `v`
 * tells a script what tar is there: ns, it takes nanoseconds; s, seconds; "", none.
 */
static const char stream_loop[] =
        "exec sh -c '"
        "LC_ALL=C; export LC_ALL; "
        "[ \"$(printf abc | dd bs=2 count=1 iflag=fullblock 2>/dev/null)\" = ab ] || exit 1; "
        "some() { dd bs=\"$1\" count=1 iflag=fullblock 2>/dev/null; }; "
        "take() { while read -r n && [ \"$n\" -gt 0 ]; do some \"$n\"; done; }; "
        "case $(tar --version 2>&1 </dev/null) in *\"GNU tar\"*|bsdtar*) v=ns;; *busybox*) v=s;; "
        "*) v=;; esac; "
        "e=$(printf \"\\nx\"); e=${e%x}; "
        "while read -r k n; do "
        "case $k in "
        "l) s=; while [ $n -gt 0 ]; do IFS= read -r l || exit; s=\"$s$l$e\"; n=$((n - 1)); done;; "
        "d) s=$(some \"$n\");; "
        "*) exit;; esac; "
        "eval \"$s\"; done'";

static const char *const commands[HELPER_KINDS] = {
        [HELPER_SCRIPTS] = "exec sh",
        [HELPER_STREAMS] = stream_loop,
};

static int helper_new(struct shell *s, struct call *c, enum helper_kind kind, struct helper **ret)
{
        struct helper *p = calloc(1, sizeof(*p));
        uint64_t until_ns = clock_after(ROOM_WAIT_NS);
        bool can_wait = kind == HELPER_SCRIPTS && s->opener->make_room;
        int r;

        if (!p)
                return call_fail(c, -ENOMEM, "out of memory");
        list_init(&p->link);
        p->shell = s;
        p->kind = kind;
        do
                r = s->opener->open(
                        s->opener, c, commands[kind],
                        &(struct stream_events){
                                .data = on_data, .drained = on_drained, .end = on_end, .ctx = p},
                        &p->stream);
        while (can_wait && (r == -EAGAIN || r == -EMFILE) &&
               s->opener->make_room(s->opener, c, until_ns));
        if (r < 0) {
                free(p);
                return r;
        }
        *ret = p;
        return 0;
}

/* An idle one that lives, or NULL; dead ones go to `dead`, to be closed without the lock. */
static struct helper *take_idle_locked(struct shell *s, enum helper_kind kind, struct list *dead)
        REQUIRES(s->lock)
{
        struct helper *found = NULL;

        list_for_each_safe (at, next, &s->helpers[kind]) {
                struct helper *p = container_of(at, struct helper, link);

                if (p->run)
                        continue;
                if (p->has_ended) {
                        list_remove(&p->link);
                        list_add_tail(dead, &p->link);
                        s->helper_count[kind]--;
                } else if (!found) {
                        found = p;
                }
        }
        return found;
}

void helper_bury(struct list *dead)
{
        list_for_each_safe (at, next, dead) {
                list_remove(at);
                helper_free(container_of(at, struct helper, link));
        }
}

/* Counts one more that is being opened, or takes an idle one for `run`. */
static int reserve_locked(struct shell *s, struct call *c, struct run *run, struct list *dead,
                          struct helper **ret) REQUIRES(s->lock)
{
        uint64_t another_ns = clock_after(ANOTHER_NS);
        int r = 0;

        while (r == 0) {
                struct helper *p = take_idle_locked(s, HELPER_SCRIPTS, dead);
                uint64_t now = clock_mono_ns();

                if (p) {
                        p->run = run;
                        *ret = p;
                        return 0;
                }
                if (s->helper_count[HELPER_SCRIPTS] == 0 ||
                    (s->helper_count[HELPER_SCRIPTS] < SHELL_COUNT_MAX && now >= another_ns)) {
                        s->helper_count[HELPER_SCRIPTS]++;
                        *ret = NULL;
                        return 0;
                }
                (void)cond_wait_until(&s->changed, &s->lock,
                                      now < another_ns ? another_ns : now + HELPER_LOOK_NS);
                r = call_check(c);
        }
        return call_fail_errno(c, r, "the host's shell is busy");
}

/* The same of those for streams; nobody waits for one: there is another way. */
static int reserve_stream_locked(struct shell *s, struct run *run, struct list *dead,
                                 struct helper **ret) REQUIRES(s->lock)
{
        struct helper *p = take_idle_locked(s, HELPER_STREAMS, dead);

        if (p)
                p->run = run;
        else if (s->helper_count[HELPER_STREAMS] >= STREAM_HELPERS_MAX)
                return -EAGAIN;
        else if (clock_mono_ns() < s->no_streams_ns)
                return -EOPNOTSUPP;
        else
                s->helper_count[HELPER_STREAMS]++;
        *ret = p;
        return 0;
}

int helper_take(struct shell *s, struct call *c, enum helper_kind kind, struct run *run,
                struct helper **ret)
{
        struct list dead = LIST_INIT(dead);
        struct helper *p = NULL;
        int r;

        mutex_lock(&s->lock);
        r = kind == HELPER_SCRIPTS ? reserve_locked(s, c, run, &dead, &p)
                                   : reserve_stream_locked(s, run, &dead, &p);
        mutex_unlock(&s->lock);
        helper_bury(&dead);
        if (r < 0)
                return r;
        if (!p) {
                r = helper_new(s, c, kind, &p);
                mutex_lock(&s->lock);
                if (p) {
                        p->run = run;
                        list_add_tail(&s->helpers[kind], &p->link);
                } else {
                        s->helper_count[kind]--;
                        if (kind == HELPER_STREAMS && (r == -EAGAIN || r == -EMFILE))
                                s->no_streams_ns = clock_after(STREAM_AGAIN_NS);
                }
                cond_broadcast(&s->changed);
                mutex_unlock(&s->lock);
        }
        *ret = p;
        return r;
}

void helper_let_go(struct helper *p, bool is_clean)
{
        struct shell *s = p->shell;
        enum helper_kind kind = p->kind;

        if (!is_clean) {
                mutex_lock(&s->lock);
                list_remove(&p->link);
                mutex_unlock(&s->lock);
                helper_free(p); /* no event comes after this: the run is the caller's again */
        }
        mutex_lock(&s->lock);
        if (is_clean) {
                p->run = NULL;
                p->is_done = false;
                p->is_proven = true;
        } else {
                s->helper_count[kind]--;
        }
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

/* Why a helper that ended did. */
static int ended_locked(const struct helper *p, struct call *c)
{
        if (p->end.error < 0)
                return call_fail(c, p->end.error, "%s",
                                 p->end.sentence[0] ? p->end.sentence : "the connection ended");
        if (!p->is_proven && p->run->phase == BEFORE)
                return call_fail(c, -EOPNOTSUPP, "the account runs no commands");
        return call_fail(c, p->shell->opener->ended < 0 ? p->shell->opener->ended : -EPROTO,
                         "the host's shell ended");
}

int helper_wait(struct helper *p, struct call *c)
{
        struct shell *s = p->shell;
        int r = 0;

        mutex_lock(&s->lock);
        while (!p->is_done && !p->has_ended && r == 0) {
                uint64_t look_ns = clock_after(HELPER_LOOK_NS);

                if (p->heard_ns > 0 && c->deadline_ns < p->heard_ns + HELPER_PROGRESS_NS)
                        c->deadline_ns = p->heard_ns + HELPER_PROGRESS_NS;
                (void)cond_wait_until(&s->changed, &s->lock,
                                      look_ns < c->deadline_ns ? look_ns : c->deadline_ns);
                if (!p->is_done && !p->has_ended)
                        r = call_check(c);
        }
        if (p->is_done)
                r = 0;
        else if (p->has_ended)
                r = ended_locked(p, c);
        else
                r = call_fail_errno(c, r, "the host's shell");
        mutex_unlock(&s->lock);
        return r;
}
