/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox: what is known of it, and how its end is put off. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/inside/files.h"
#include "providers/inside/talk.h"
#include "providers/remote/private.h"
#include "providers/remote/scripts.h"
#include "providers/remote/remote.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

#define PLACE_MAX ((size_t)16 << 10)
#define WORKDIR_DEFAULT "/workspace"
#define RENEW_AGAIN_NS (10 * NS_PER_S)
#define LOOK_NS (100 * NS_PER_MS)

/* ---- birth and end ---- */

void remote_box_done(struct remote_box *b)
{
        inside_files_free(b->files); /* its streams, as the talk's, may ask what we are now */
        talk_free(b->talk);
        free(b->user);
        free(b->workdir);
        cond_done(&b->changed);
        mutex_done(&b->lock);
}

int remote_box_init(struct remote_box *b, struct remote *p, const char *id, const struct spec *spec,
                    uint64_t timeout_s)
{
        b->base.provider = &p->base;
        b->remote = p;
        b->state = BOX_UNKNOWN;
        b->listed = BOX_UNKNOWN;
        b->due_ns = NEVER_NS;
        b->timeout_s = b->held_s = spec && spec->timeout_ns > 0 ? timeout_s : 0;
        (void)snprintf(b->base.id, sizeof(b->base.id), "%s", id); /* checked */
        (void)snprintf(b->key, sizeof(b->key), "%s", spec ? spec->key : "");
        mutex_init(&b->lock);
        cond_init(&b->changed);
        b->talk = talk_new(&b->base, &remote_inside);
        scripts_runner_init(&b->by_scripts);
        if (!b->talk || inside_files_new(&b->base, &remote_inside, &b->files) < 0) {
                remote_box_done(b);
                return -ENOMEM;
        }
        mutex_lock(&p->lock);
        list_add_tail(&p->boxes, &b->link);
        cond_broadcast(&p->changed);
        mutex_unlock(&p->lock);
        return 0;
}

void remote_box_release(struct box *box)
{
        struct remote_box *b = remote_box_of(box);
        struct remote *p = b->remote;

        mutex_lock(&p->lock);
        b->is_released = true;
        if (b->tending)
                call_cancel(b->tending);
        while (b->tending)
                cond_wait(&p->changed, &p->lock);
        list_remove(&b->link);
        mutex_unlock(&p->lock);
        p->ops->free(b);
}

/* ---- states ---- */

void remote_follow(struct remote_box *b, enum box_state state)
{
        bool is_news;

        mutex_lock(&b->lock);
        is_news = !b->is_changing && b->state != state && state != BOX_UNKNOWN;
        if (is_news)
                b->state = state;
        mutex_unlock(&b->lock);
        if (is_news)
                talk_follow(b->talk, state);
}

void remote_follow_listed(struct remote *p, const char *id, enum box_state state)
{
        struct remote_box *found = NULL;

        mutex_lock(&p->lock);
        list_for_each (at, &p->boxes) {
                struct remote_box *b = list_entry(at, struct remote_box, link);

                if (id && !b->is_released && strcmp(b->base.id, id) == 0 &&
                    remote_state_of(b) != state)
                        found = b;
        }
        if (found) {
                found->listed = state;
                found->due_ns = 0;
                cond_broadcast(&p->changed);
        }
        mutex_unlock(&p->lock);
}

bool remote_knows(struct remote *p, const char *id, enum box_state *ret)
{
        bool is_known = false;

        mutex_lock(&p->lock);
        list_for_each (at, &p->boxes) {
                struct remote_box *b = list_entry(at, struct remote_box, link);

                if (b->is_released || strcmp(b->base.id, id) != 0)
                        continue;
                *ret = remote_state_of(b);
                is_known = true;
        }
        mutex_unlock(&p->lock);
        return is_known;
}

enum box_state remote_state_of(struct remote_box *b)
{
        enum box_state state;

        mutex_lock(&b->lock);
        state = b->state;
        mutex_unlock(&b->lock);
        return state;
}

int remote_look(struct remote_box *b, struct call *c, struct box_status *ret)
{
        int r = b->remote->ops->look(b, c, ret);

        if (r == -ENODEV)
                remote_follow(b, BOX_GONE);
        else if (r == 0)
                remote_follow(b, ret->state);
        return r;
}

/* What the service refused, where it has nothing to say of the sandbox itself. */
static void add_refusal(struct remote_box *b, struct box_status *status)
{
        mutex_lock(&b->lock);
        if (!status->sentence[0])
                memcpy(status->sentence, b->refusal, sizeof(status->sentence));
        mutex_unlock(&b->lock);
}

int remote_box_state(struct box *box, struct call *c, struct box_status *ret)
{
        struct box_status status;
        int r = remote_look(remote_box_of(box), c, &status);

        if (r == -ENODEV) {
                c->sentence[0] = '\0';
                status = (struct box_status){.state = BOX_GONE, .raw = "missing"};
                r = 0;
        } else if (r == 0) {
                add_refusal(remote_box_of(box), &status);
        }
        if (r == 0)
                *ret = status;
        return r;
}

int remote_wait_for(struct remote_box *b, struct call *c, enum box_state wanted)
{
        for (;;) {
                struct box_status status;
                int r = remote_look(b, c, &status);

                if (r < 0 || status.state == wanted)
                        return r;
                if (status.state == BOX_ERROR || status.state == BOX_STOPPED)
                        return call_fail(c, -EIO, "the sandbox is in state %s: %.200s", status.raw,
                                         status.sentence);
                r = call_check(c);
                if (r < 0)
                        return call_wrap(c, r, "the sandbox is still %s",
                                         box_state_name(status.state));
                mutex_lock(&b->lock);
                (void)cond_wait_until(&b->changed, &b->lock, clock_after(LOOK_NS));
                mutex_unlock(&b->lock);
        }
}

int remote_check_runs(struct remote_box *b, struct call *c)
{
        enum box_state state = remote_state_of(b);
        struct box_status status;

        if (state == BOX_UNKNOWN) {
                int r = remote_look(b, c, &status);

                if (r < 0)
                        return r;
                state = status.state;
        }
        if (state == BOX_GONE || state == BOX_DESTROYING)
                return call_fail(c, -ENODEV, "the sandbox is gone");
        if (state == BOX_PAUSED || state == BOX_PAUSING)
                return call_fail(c, -EHOSTDOWN, "the sandbox is paused");
        if (state == BOX_STOPPED || state == BOX_ERROR)
                return call_fail(c, -EHOSTDOWN, "the sandbox has ended");
        return 0;
}

/* ---- what is known of it ---- */

void remote_asked(struct remote_box *b, const char *user, const char *workdir)
{
        mutex_lock(&b->lock);
        if (workdir && workdir[0] == '/' && workdir[1] && !b->asked_workdir[0] &&
            strlen(workdir) < sizeof(b->asked_workdir))
                (void)snprintf(b->asked_workdir, sizeof(b->asked_workdir), "%s", workdir);
        if (user && !b->asked_user[0] && strlen(user) < sizeof(b->asked_user))
                (void)snprintf(b->asked_user, sizeof(b->asked_user), "%s", user);
        b->has_asked = true;
        mutex_unlock(&b->lock);
}

bool remote_known_place(struct remote_box *b, struct remote_place *ret)
{
        bool is_known;

        mutex_lock(&b->lock);
        is_known = b->workdir != NULL;
        if (is_known)
                *ret = (struct remote_place){.user = b->user, .workdir = b->workdir};
        mutex_unlock(&b->lock);
        return is_known;
}

/* "/home/user\nuser\n"; cut apart in place. */
static bool parse_place(char *said, const char **ret_workdir, const char **ret_user)
{
        char *end = strchr(said, '\n'), *user = end ? end + 1 : NULL;
        char *last = user ? strchr(user, '\n') : NULL;

        if (!last || said[0] != '/' || user == last || last - user > 63)
                return false;
        *end = *last = '\0';
        *ret_workdir = said;
        *ret_user = user;
        return strlen(said) < PLACE_MAX / 4;
}

static int keep_place(struct remote_box *b, const char *workdir, const char *user)
{
        char *w = strdup(workdir), *u = strdup(user);

        if (!w || !u) {
                free(w);
                free(u);
                return -ENOMEM;
        }
        mutex_lock(&b->lock);
        if (!b->workdir) {
                b->workdir = STEAL(w);
                b->user = STEAL(u);
        }
        mutex_unlock(&b->lock);
        free(w);
        free(u);
        return 0;
}

int remote_place(struct remote_box *b, struct call *c, struct remote_place *ret)
{
        static const char *const argv[] = {"sh", "-c", "pwd && { id -un 2>/dev/null || id -u; }",
                                           NULL};
        static const struct remote_program where = {.argv = argv};
        _cleanup_(buf_done) struct buf said = BUF_INIT(PLACE_MAX);
        const char *workdir, *user;
        char asked[sizeof(b->asked_user)], asked_workdir[sizeof(b->asked_workdir)];
        struct box_status status;
        bool has_asked;
        int code = 0, r = 0;

        if (remote_known_place(b, ret))
                return 0;
        mutex_lock(&b->lock);
        has_asked = b->has_asked;
        mutex_unlock(&b->lock);
        if (!has_asked)
                r = remote_look(b, c, &status);
        if (r < 0)
                return r;
        mutex_lock(&b->lock);
        memcpy(asked, b->asked_user, sizeof(asked));
        memcpy(asked_workdir, b->asked_workdir, sizeof(asked_workdir));
        mutex_unlock(&b->lock);
        r = b->remote->ops->run(b, c, asked[0] ? asked : NULL, &where, &said, &code);
        if (r < 0)
                return call_wrap(c, r, "looking into the sandbox");
        if (code != 0 || said.size == 0 || !parse_place(said.data, &workdir, &user))
                return call_fail(c, -EPROTO, "the sandbox doesn't say where its home is");
        if (strcmp(workdir, "/") == 0)
                workdir = WORKDIR_DEFAULT;
        r = keep_place(b, asked_workdir[0] ? asked_workdir : workdir, user);
        if (r < 0)
                return call_fail(c, r, "out of memory");
        (void)remote_known_place(b, ret);
        return 0;
}

/* ---- its end is put off ---- */

static uint64_t half_ns(const struct remote_box *b)
{
        return b->timeout_s ? b->timeout_s * NS_PER_S / 2 : b->remote->ops->half_ns;
}

void remote_touch(struct remote_box *b)
{
        uint64_t now_ns = clock_mono_ns(),
                 renewed_ns = atomic_load_explicit(&b->renewed_ns, memory_order_relaxed);

        uint64_t before_ns = atomic_exchange_explicit(&b->used_ns, now_ns, memory_order_relaxed);

        if (before_ns <= renewed_ns || now_ns >= renewed_ns + half_ns(b))
                remote_wake(b);
}

static void set_refusal(struct remote_box *b, const char *sentence)
{
        mutex_lock(&b->lock);
        (void)snprintf(b->refusal, sizeof(b->refusal), "%.*s", (int)sizeof(b->refusal) - 1,
                       sentence);
        mutex_unlock(&b->lock);
}

void remote_set_timeout(struct box *box, const struct spec *spec)
{
        struct remote_box *b = remote_box_of(box);

        set_refusal(b, "");
        atomic_store(&b->timeout_s, spec->timeout_ns > 0 ? b->remote->ops->timeout_s(spec) : 0);
        atomic_store(&b->is_untold, true);
        remote_wake(b);
}

/* The service won't have that time-out: people hear why, and the one before it holds. */
static void refuse(struct remote_box *b, struct call *c, uint64_t asked_s)
{
        const struct provider_listener *to = &b->remote->listener;

        if (!atomic_compare_exchange_strong(&b->timeout_s, &asked_s, b->held_s))
                return; /* another was written meanwhile */
        (void)call_wrap(c, -EINVAL, "its time-out");
        set_refusal(b, c->sentence);
        if (to->box_changed)
                to->box_changed(to->ctx, b->base.id);
}

/* Its time-out, where that is another, or its end, by the last one. */
static int tell_time(struct remote_box *b, struct call *c, bool is_untold)
{
        const struct remote_ops *ops = b->remote->ops;
        uint64_t asked_s;
        int r;

        if (is_untold)
                atomic_store(&b->is_untold, false); /* what is written meanwhile is told again */
        asked_s = atomic_load(&b->timeout_s);
        r = is_untold && ops->retime ? ops->retime(b, c) : ops->put_off(b, c);
        if (r == 0)
                b->held_s = asked_s;
        else if (r == -EINVAL && asked_s > 0 && (is_untold || !ops->retime))
                refuse(b, c, asked_s);
        else if (is_untold)
                atomic_store(&b->is_untold, true);
        return r;
}

uint64_t remote_renew(struct remote_box *b, struct call *c)
{
        uint64_t now_ns = clock_mono_ns(), renewed_ns = atomic_load(&b->renewed_ns),
                 used_ns = atomic_load(&b->used_ns);
        bool is_busy = talk_is_busy(b->talk) || atomic_load(&b->direct_execs) > 0;
        bool is_untold = atomic_load(&b->is_untold);
        int r;

        if (remote_state_of(b) != BOX_RUNNING || (!is_busy && !is_untold && used_ns <= renewed_ns))
                return NEVER_NS; /* until it is used, or resumed */
        if (renewed_ns > 0 && !is_untold && now_ns < renewed_ns + half_ns(b))
                return renewed_ns + half_ns(b);
        c->deadline_ns = clock_after(RENEW_AGAIN_NS);
        r = tell_time(b, c, is_untold);
        if (r < 0) {
                log_debug(b->remote->ops->name, "%s: putting off its end: %s", b->base.id,
                          c->sentence);
                return clock_after(r == -EINVAL ? half_ns(b) / 2 : RENEW_AGAIN_NS);
        }
        atomic_store(&b->renewed_ns, now_ns);
        return now_ns + half_ns(b);
}

/* ---- creation ---- */

/* Where our program, which does the same, isn't. */
static int make_workdir(struct remote_box *b, struct call *c)
{
        static const char script[] =
                "[ -d \"$0\" ] || { mkdir -p -- \"$0\" && chown -- \"$1\" \"$0\"; }";
        struct remote_place place = {0};
        int code = 0, r = remote_place(b, c, &place);

        if (r < 0)
                return r;
        const char *const argv[] = {"sh", "-c", script, place.workdir, place.user, NULL};
        const struct remote_program p = {.argv = argv, .cwd = "/"};

        r = b->remote->ops->run(b, c, REMOTE_ROOT, &p, NULL, &code);
        return r < 0 || code == 0 ? r : call_wrap(c, -EIO, "making %.200s", place.workdir);
}

/* Our program not running there ends nothing. */
static int put_all(struct remote_box *b, struct call *c)
{
        struct remote_place place;
        int r = remote_place(b, c, &place);

        if (r == 0 && !b->remote->has_no_agent)
                r = remote_put_init(b, c);
        if (r == -EOPNOTSUPP && atomic_load(&b->is_foreign)) {
                log_debug(b->remote->ops->name, "%s: %s, ignoring", b->base.id, c->sentence);
                c->sentence[0] = '\0';
                r = make_workdir(b, c);
        } else if (r == 0 && b->remote->has_no_agent) {
                r = make_workdir(b, c);
        }
        return r;
}

int remote_furnish(struct remote_box *b, int r, struct call *c, const struct spec *spec,
                   struct box **ret)
{
        remote_asked(b, spec->text[SETTING_USER], spec->text[SETTING_WORKDIR]);
        atomic_store(&b->renewed_ns, clock_mono_ns());
        remote_follow(b, BOX_RUNNING);
        remote_tell(b->remote, spec, "putting our program into the sandbox");
        if (r == 0)
                r = put_all(b, c);
        if (r < 0) {
                remote_discard(b);
                remote_box_release(&b->base);
                return r == -ENODEV ? -EIO : r;
        }
        if (!atomic_load(&b->is_foreign))
                talk_wanted(b->talk); /* there before the first command */
        *ret = &b->base;
        return 0;
}
