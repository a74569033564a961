/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/sandbox/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/sandbox/fake_state.h"

struct fake_state fake_state;

/* ---- what calls do ---- */

int fake_enter(enum fake_op op, struct call *c)
{
        int r = 0;

        mutex_lock(&fake_state.lock);
        fake_state.calls[op]++;
        cond_broadcast(&fake_state.changed);
        while (fake_state.hangs[op] && r == 0) {
                (void)cond_wait_until(&fake_state.changed, &fake_state.lock,
                                      clock_after(NS_PER_MS));
                r = call_check(c);
                if (r == -EINTR)
                        fake_state.was_cancelled[op] = true;
        }
        if (r == 0 && fake_state.fail_count[op] != 0) {
                r = fake_state.fail[op];
                if (fake_state.fail_count[op] > 0)
                        fake_state.fail_count[op]--;
        }
        mutex_unlock(&fake_state.lock);
        return r < 0 ? call_fail(c, r, "fake: operation %d fails", (int)op) : 0;
}

static struct fake_box *find_locked(const char *id)
{
        for (unsigned i = 0; i < fake_state.box_count; i++)
                if (strcmp(fake_state.boxes[i].id, id) == 0)
                        return &fake_state.boxes[i];
        return NULL;
}

/* One that is known to be there. */
static struct fake_box *get_locked(const char *id)
{
        struct fake_box *b = find_locked(id);

        if (!b)
                abort();
        return b;
}

static int move(struct box *b, struct call *c, enum fake_op op, enum box_state to)
{
        struct fake_box *fb;
        int r = fake_enter(op, c);

        if (r < 0)
                return r;
        mutex_lock(&fake_state.lock);
        fb = find_locked(b->id);
        if (!fb || !fb->exists)
                r = -ENODEV;
        else
                fb->status.state = to;
        mutex_unlock(&fake_state.lock);
        return r;
}

static struct fake_box *add_locked(const char *name, const char *key)
{
        struct fake_box *b = &fake_state.boxes[fake_state.box_count++];

        if (fake_state.box_count > BOXES)
                abort();
        *b = (struct fake_box){.exists = true, .is_listed = true};
        (void)snprintf(b->id, sizeof(b->id), "box-%u", fake_state.box_count);
        (void)snprintf(b->key, sizeof(b->key), "%s", key);
        (void)snprintf(b->name, sizeof(b->name), "%s", name);
        b->status.state = BOX_RUNNING;
        (void)snprintf(b->status.raw, sizeof(b->status.raw), "up");
        return b;
}

static int new_box(struct provider *p, const char *id, struct box **ret)
{
        struct box *b = calloc(1, sizeof(*b));

        if (!b)
                return -ENOMEM;
        b->provider = p;
        (void)snprintf(b->id, sizeof(b->id), "%s", id);
        *ret = b;
        return 0;
}

static void op_close(struct provider *p)
{
        free(p);
}

static int op_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret)
{
        struct fake_box *b;
        int r = fake_enter(FAKE_CREATE, c);

        mutex_lock(&fake_state.lock);
        c->made_nothing = r < 0 && fake_state.makes_nothing;
        if (r < 0) {
                mutex_unlock(&fake_state.lock);
                return r;
        }
        b = add_locked(spec->name, spec->key);
        b->spec = *spec;
        for (unsigned i = 0; i < SETTING_COUNT; i++)
                if (spec->text[i])
                        (void)snprintf(b->text[i], sizeof(b->text[i]), "%s", spec->text[i]);
        memset(b->spec.text, 0, sizeof(b->spec.text));
        b->spec.env = b->spec.labels = NULL;
        b->spec.mounts = NULL;
        b->status.memory = spec->memory;
        mutex_unlock(&fake_state.lock);
        return new_box(p, b->id, ret);
}

static int op_destroy(struct box *b, struct call *c)
{
        int r = move(b, c, FAKE_DESTROY, BOX_GONE);

        if (r == 0) {
                mutex_lock(&fake_state.lock);
                get_locked(b->id)->exists = false;
                mutex_unlock(&fake_state.lock);
        }
        return r == -ENODEV ? 0 : r;
}

static int op_list(struct provider *p, struct call *c, struct box_sink *to)
{
        int r = fake_enter(FAKE_LIST, c);
        unsigned count;

        (void)p;
        mutex_lock(&fake_state.lock);
        count = fake_state.box_count;
        mutex_unlock(&fake_state.lock);
        for (unsigned i = 0; i < count && r == 0; i++) {
                struct box_found found;
                struct fake_box b;

                mutex_lock(&fake_state.lock);
                b = fake_state.boxes[i];
                mutex_unlock(&fake_state.lock);
                found = (struct box_found){
                        .id = b.id, .key = b.key, .name = b.name, .status = b.status};
                if (b.exists && b.is_listed && to->found(to, &found))
                        break;
        }
        return r;
}

static int op_state(struct box *b, struct call *c, struct box_status *ret)
{
        const struct fake_box *fb;
        int r = fake_enter(FAKE_STATE, c);

        if (r < 0)
                return r;
        mutex_lock(&fake_state.lock);
        fb = find_locked(b->id);
        if (fb)
                *ret = fb->status;
        else
                ret->state = BOX_GONE;
        mutex_unlock(&fake_state.lock);
        return 0;
}

static int op_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                     struct box **ret)
{
        int r = fake_enter(FAKE_ATTACH, c);
        const struct fake_box *b;

        (void)spec;
        if (r < 0)
                return r;
        mutex_lock(&fake_state.lock);
        b = find_locked(id);
        r = b && b->exists ? 0 : -ENODEV;
        mutex_unlock(&fake_state.lock);
        return r < 0 ? call_fail(c, r, "there is no %s", id) : new_box(p, id, ret);
}

static _Thread_local bool is_telling;

static void op_release(struct box *b)
{
        atomic_fetch_add(&fake_state.own_releases, is_telling);
        free(b);
}

static int op_start(struct box *b, struct call *c, const struct spec *spec)
{
        (void)spec;
        return move(b, c, FAKE_START, BOX_RUNNING);
}

static int op_stop(struct box *b, struct call *c)
{
        return move(b, c, FAKE_STOP, BOX_STOPPED);
}

static int op_pause(struct box *b, struct call *c)
{
        return move(b, c, FAKE_PAUSE, BOX_PAUSED);
}

static int op_resume(struct box *b, struct call *c)
{
        return move(b, c, FAKE_RESUME, BOX_RUNNING);
}

static int op_root(struct box *b, struct call *c, struct box_root *ret)
{
        (void)c;
        *ret = (struct box_root){.fd = open("/", O_PATH | O_CLOEXEC), .uid = 7, .gid = 8};
        (void)snprintf(ret->inside, sizeof(ret->inside), "/%s", b->id);
        return ret->fd < 0 ? -errno : 0;
}

static bool op_is_quiet(const struct box *b)
{
        bool is_quiet;

        mutex_lock(&fake_state.lock);
        is_quiet = get_locked(b->id)->status.state != BOX_RUNNING;
        mutex_unlock(&fake_state.lock);
        return is_quiet;
}

/* ---- what tests call ---- */

static const struct provider_ops full = {
        .name = "fake",
        .settings = SETTING_BIT(SETTING_IMAGE) | SETTING_BIT(SETTING_CPU) |
                    SETTING_BIT(SETTING_MEMORY) | SETTING_BIT(SETTING_NET) |
                    SETTING_BIT(SETTING_ENV) | SETTING_BIT(SETTING_MOUNT) |
                    SETTING_BIT(SETTING_WORKDIR) | SETTING_BIT(SETTING_READONLY),
        .config_keys = (const char *const[]){"endpoint", "token", NULL},
        .close = op_close,
        .create = op_create,
        .destroy = op_destroy,
        .list = op_list,
        .state = op_state,
        .attach = op_attach,
        .release = op_release,
        .start = op_start,
        .stop = op_stop,
        .pause = op_pause,
        .resume = op_resume,
        .exec_start = fake_op_exec_start,
        .exec_attach = fake_op_exec_attach,
        .exec_write = fake_op_exec_write,
        .exec_signal = fake_op_exec_signal,
        .exec_release = fake_op_exec_release,
        .root = op_root,
        .is_quiet = op_is_quiet,
};

void fake_reset(uint32_t traits)
{
        if (!fake_state.is_set_up) {
                mutex_init(&fake_state.lock);
                cond_init(&fake_state.changed);
        }
        fake_state.is_set_up = true;
        mutex_lock(&fake_state.lock);
        fake_forget_execs_locked();
        fake_state.box_count = 0;
        atomic_store(&fake_state.own_releases, 0);
        memset(fake_state.fail_count, 0, sizeof(fake_state.fail_count));
        memset(fake_state.hangs, 0, sizeof(fake_state.hangs));
        fake_state.makes_nothing = false;
        memset(fake_state.was_cancelled, 0, sizeof(fake_state.was_cancelled));
        memset(fake_state.calls, 0, sizeof(fake_state.calls));
        fake_state.ops = full;
        fake_state.ops.traits = traits;
        mutex_unlock(&fake_state.lock);
}

struct provider_ops *fake_ops(void)
{
        return &fake_state.ops;
}

const struct provider_ops *fake_find(const char *kind)
{
        return strcmp(kind, "fake") == 0 ? &fake_state.ops : NULL;
}

int fake_open(const char *kind, const struct provider_config *config, struct call *c,
              struct provider **ret)
{
        struct provider *p;
        int r = fake_enter(FAKE_OPEN, c);

        (void)kind;
        if (r < 0)
                return r;
        p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->ops = &fake_state.ops;
        p->allow = config->allow;
        (void)snprintf(p->instance, sizeof(p->instance), "%s", config->instance);
        fake_state.listener = config->listener;
        *ret = p;
        return 0;
}

unsigned fake_fail(enum fake_op op, int code, int count)
{
        unsigned n;

        mutex_lock(&fake_state.lock);
        fake_state.fail[op] = code;
        fake_state.fail_count[op] = code ? count : 0;
        n = fake_state.calls[op];
        mutex_unlock(&fake_state.lock);
        return n;
}

void fake_makes_nothing(bool on)
{
        mutex_lock(&fake_state.lock);
        fake_state.makes_nothing = on;
        mutex_unlock(&fake_state.lock);
}

void fake_hang(enum fake_op op, bool on)
{
        mutex_lock(&fake_state.lock);
        fake_state.hangs[op] = on;
        cond_broadcast(&fake_state.changed);
        mutex_unlock(&fake_state.lock);
}

unsigned fake_calls(enum fake_op op)
{
        unsigned n;

        mutex_lock(&fake_state.lock);
        n = fake_state.calls[op];
        mutex_unlock(&fake_state.lock);
        return n;
}

bool fake_was_cancelled(enum fake_op op)
{
        bool was;

        mutex_lock(&fake_state.lock);
        was = fake_state.was_cancelled[op];
        mutex_unlock(&fake_state.lock);
        return was;
}

unsigned fake_count(void)
{
        unsigned n = 0;

        mutex_lock(&fake_state.lock);
        for (unsigned i = 0; i < fake_state.box_count; i++)
                n += fake_state.boxes[i].exists;
        mutex_unlock(&fake_state.lock);
        return n;
}

const char *fake_id(const char *name)
{
        const char *id = "";

        mutex_lock(&fake_state.lock);
        for (unsigned i = 0; i < fake_state.box_count; i++)
                if (strcmp(fake_state.boxes[i].name, name) == 0)
                        id = fake_state.boxes[i].id;
        mutex_unlock(&fake_state.lock);
        return id;
}

bool fake_exists(const char *id)
{
        const struct fake_box *b;
        bool exists;

        mutex_lock(&fake_state.lock);
        b = find_locked(id);
        exists = b && b->exists;
        mutex_unlock(&fake_state.lock);
        return exists;
}

const char *fake_add(const char *name, bool is_listed)
{
        struct fake_box *b;

        mutex_lock(&fake_state.lock);
        b = add_locked(name, "");
        b->is_listed = is_listed;
        mutex_unlock(&fake_state.lock);
        return b->id;
}

void fake_set_state(const char *id, enum box_state state, const char *sentence)
{
        struct fake_box *b;

        mutex_lock(&fake_state.lock);
        b = get_locked(id);
        b->status.state = state;
        (void)snprintf(b->status.sentence, sizeof(b->status.sentence), "%s", sentence);
        if (state == BOX_GONE)
                b->exists = false;
        mutex_unlock(&fake_state.lock);
}

void fake_news(const char *id)
{
        is_telling = true;
        fake_state.listener.box_changed(fake_state.listener.ctx, id);
        is_telling = false;
}

unsigned fake_own_releases(void)
{
        return atomic_load(&fake_state.own_releases);
}

struct spec fake_spec(const char *id)
{
        struct spec spec = {0};
        const struct fake_box *b;

        mutex_lock(&fake_state.lock);
        b = find_locked(id);
        if (b)
                spec = b->spec;
        mutex_unlock(&fake_state.lock);
        return spec;
}

const char *fake_text(const char *id, enum setting x)
{
        const struct fake_box *b;

        mutex_lock(&fake_state.lock);
        b = find_locked(id);
        mutex_unlock(&fake_state.lock);
        return b ? b->text[x] : "";
}
