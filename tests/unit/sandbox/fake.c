/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/sandbox/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

#define BOXES 256
#define EXECS 512
#define SIGNALS 8
#define ENV 16

struct fake_box {
        bool exists, is_listed;
        char id[32], key[32], name[NAME_SIZE];
        struct spec spec;
        char text[SETTING_COUNT][128];
        struct box_status status;
};

struct fake_exec {
        char box_id[128];
        uint64_t number;
        char command[256];
        struct pair env[ENV];
        size_t env_count;
        uint64_t timeout_ns;
        bool is_forgotten;
        struct {
                char *data;
                size_t size;
                uint64_t first; /* stream offset of data[0] */
        } log[2];
        bool has_ended;
        struct exec_end end;
        char *in;
        size_t in_size;
        bool has_eof;
        int signals[SIGNALS];
        unsigned signal_count;
        struct exec_sink *sink; /* who is attached */
        bool is_busy; /* the sink is being called */
        bool was_end_told;
};

struct handle {
        struct exec exec;
        struct fake_exec *x;
};

static struct {
        struct mutex lock;
        struct cond changed;
        bool is_set_up;
        struct provider_ops ops;
        struct provider_listener listener;
        int fail[FAKE_OPS], fail_count[FAKE_OPS];
        bool hangs[FAKE_OPS], was_cancelled[FAKE_OPS];
        unsigned calls[FAKE_OPS];
        struct fake_box boxes[BOXES];
        unsigned box_count;
        struct fake_exec execs[EXECS];
        unsigned exec_count;
} fake;

/* ---- what calls do ---- */

/* Counts the call, waits as told; then 0 or what the call shall fail with. */
static int enter(enum fake_op op, struct call *c)
{
        int r = 0;

        mutex_lock(&fake.lock);
        fake.calls[op]++;
        cond_broadcast(&fake.changed);
        while (fake.hangs[op] && r == 0) {
                (void)cond_wait_until(&fake.changed, &fake.lock, clock_after(NS_PER_MS));
                r = call_check(c);
                if (r == -EINTR)
                        fake.was_cancelled[op] = true;
        }
        if (r == 0 && fake.fail_count[op] != 0) {
                r = fake.fail[op];
                if (fake.fail_count[op] > 0)
                        fake.fail_count[op]--;
        }
        mutex_unlock(&fake.lock);
        return r < 0 ? call_fail(c, r, "fake: operation %d fails", (int)op) : 0;
}

static struct fake_box *find_locked(const char *id)
{
        for (unsigned i = 0; i < fake.box_count; i++)
                if (strcmp(fake.boxes[i].id, id) == 0)
                        return &fake.boxes[i];
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

static struct fake_exec *find_exec_locked(const char *id, uint64_t number)
{
        for (unsigned i = 0; i < fake.exec_count; i++)
                if (strcmp(fake.execs[i].box_id, id) == 0 && fake.execs[i].number == number)
                        return &fake.execs[i];
        return NULL;
}

static int move(struct box *b, struct call *c, enum fake_op op, enum box_state to)
{
        struct fake_box *fb;
        int r = enter(op, c);

        if (r < 0)
                return r;
        mutex_lock(&fake.lock);
        fb = find_locked(b->id);
        if (!fb || !fb->exists)
                r = -ENODEV;
        else
                fb->status.state = to;
        mutex_unlock(&fake.lock);
        return r;
}

static struct fake_box *add_locked(const char *name, const char *key)
{
        struct fake_box *b = &fake.boxes[fake.box_count++];

        if (fake.box_count > BOXES)
                abort();
        *b = (struct fake_box){.exists = true, .is_listed = true};
        (void)snprintf(b->id, sizeof(b->id), "box-%u", fake.box_count);
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
        int r = enter(FAKE_CREATE, c);

        if (r < 0)
                return r;
        mutex_lock(&fake.lock);
        b = add_locked(spec->name, spec->key);
        b->spec = *spec;
        for (unsigned i = 0; i < SETTING_COUNT; i++)
                if (spec->text[i])
                        (void)snprintf(b->text[i], sizeof(b->text[i]), "%s", spec->text[i]);
        memset(b->spec.text, 0, sizeof(b->spec.text));
        b->spec.env = b->spec.labels = NULL;
        b->spec.mounts = NULL;
        b->status.memory = spec->memory;
        mutex_unlock(&fake.lock);
        return new_box(p, b->id, ret);
}

static int op_destroy(struct box *b, struct call *c)
{
        int r = move(b, c, FAKE_DESTROY, BOX_GONE);

        if (r == 0) {
                mutex_lock(&fake.lock);
                get_locked(b->id)->exists = false;
                mutex_unlock(&fake.lock);
        }
        return r == -ENODEV ? 0 : r;
}

static int op_list(struct provider *p, struct call *c, struct box_sink *to)
{
        int r = enter(FAKE_LIST, c);
        unsigned count;

        (void)p;
        mutex_lock(&fake.lock);
        count = fake.box_count;
        mutex_unlock(&fake.lock);
        for (unsigned i = 0; i < count && r == 0; i++) {
                struct box_found found;
                struct fake_box b;

                mutex_lock(&fake.lock);
                b = fake.boxes[i];
                mutex_unlock(&fake.lock);
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
        int r = enter(FAKE_STATE, c);

        if (r < 0)
                return r;
        mutex_lock(&fake.lock);
        fb = find_locked(b->id);
        if (fb)
                *ret = fb->status;
        else
                ret->state = BOX_GONE;
        mutex_unlock(&fake.lock);
        return 0;
}

static int op_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                     struct box **ret)
{
        int r = enter(FAKE_ATTACH, c);
        const struct fake_box *b;

        (void)spec;
        if (r < 0)
                return r;
        mutex_lock(&fake.lock);
        b = find_locked(id);
        r = b && b->exists ? 0 : -ENODEV;
        mutex_unlock(&fake.lock);
        return r < 0 ? call_fail(c, r, "there is no %s", id) : new_box(p, id, ret);
}

static void op_release(struct box *b)
{
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

        mutex_lock(&fake.lock);
        is_quiet = get_locked(b->id)->status.state != BOX_RUNNING;
        mutex_unlock(&fake.lock);
        return is_quiet;
}

/* ---- commands ---- */

/* The sink, kept from being released until unlock_sink; NULL: nobody is attached. */
static struct exec_sink *lock_sink(struct fake_exec *x)
{
        struct exec_sink *sink;

        mutex_lock(&fake.lock);
        while (x->is_busy)
                cond_wait(&fake.changed, &fake.lock);
        sink = x->sink;
        x->is_busy = sink != NULL;
        mutex_unlock(&fake.lock);
        return sink;
}

static void unlock_sink(struct fake_exec *x)
{
        mutex_lock(&fake.lock);
        x->is_busy = false;
        cond_broadcast(&fake.changed);
        mutex_unlock(&fake.lock);
}

static int new_handle(struct box *b, struct fake_exec *x, struct exec_sink *to, struct exec **ret)
{
        struct handle *h = calloc(1, sizeof(*h));

        if (!h)
                return -ENOMEM;
        h->exec.box = b;
        h->exec.pid = 100 + (int64_t)x->number;
        (void)snprintf(h->exec.id, sizeof(h->exec.id), "x%llu", (unsigned long long)x->number);
        h->x = x;
        mutex_lock(&fake.lock);
        x->sink = to;
        mutex_unlock(&fake.lock);
        *ret = &h->exec;
        return 0;
}

/* Tells what is known to whoever attached just now. */
static void catch_up(struct fake_exec *x, const uint64_t have[2])
{
        struct exec_sink *to = lock_sink(x);

        for (unsigned i = 0; i < 2; i++) {
                uint64_t from = have[i] > x->log[i].first ? have[i] : x->log[i].first;
                uint64_t end = x->log[i].first + x->log[i].size;

                if (end > from)
                        to->output(to, (enum exec_stream)i, from,
                                   x->log[i].data + (from - x->log[i].first), (size_t)(end - from));
        }
        to->stdin_taken(to, x->in_size);
        if (x->has_ended)
                to->end(to, &x->end);
        unlock_sink(x);
}

static struct fake_exec *record_exec(struct box *b, const struct exec_req *in)
{
        struct fake_exec *x;
        size_t last = 0;

        while (in->argv[last + 1])
                last++;
        mutex_lock(&fake.lock);
        if (fake.exec_count == EXECS)
                abort();
        x = &fake.execs[fake.exec_count];
        *x = (struct fake_exec){.number = in->number, .timeout_ns = in->timeout_ns};
        (void)snprintf(x->box_id, sizeof(x->box_id), "%s", b->id);
        (void)snprintf(x->command, sizeof(x->command), "%s", in->argv[last]);
        for (size_t i = 0; i < in->env_count && i < ENV; i++)
                x->env[x->env_count++] = (struct pair){.key = strdup(in->env[i].key),
                                                       .value = strdup(in->env[i].value)};
        fake.exec_count++;
        mutex_unlock(&fake.lock);
        return x;
}

static int op_exec_start(struct box *b, struct call *c, const struct exec_req *in,
                         struct exec_sink *to, struct exec **ret)
{
        struct fake_exec *x;
        int r = enter(FAKE_EXEC_START, c);

        /* -ETIMEDOUT: it may run all the same, so it does. */
        if (r < 0 && r != -ETIMEDOUT)
                return r;
        x = record_exec(b, in);
        if (r < 0)
                return r;
        r = new_handle(b, x, to, ret);
        if (r == 0 && strncmp(x->command, "now ", 4) == 0)
                fake_exec_end(x, EXEC_END_CODE, x->command[4] - '0');
        return r;
}

static int op_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                          const uint64_t have[2], struct exec_sink *to, struct exec **ret)
{
        struct fake_exec *x;
        int r = enter(FAKE_EXEC_ATTACH, c);

        (void)id;
        if (r < 0)
                return r;
        mutex_lock(&fake.lock);
        x = find_exec_locked(b->id, number);
        if (!x || x->is_forgotten)
                r = -ENOENT;
        mutex_unlock(&fake.lock);
        if (r == 0)
                r = new_handle(b, x, to, ret);
        if (r == 0)
                catch_up(x, have);
        return r;
}

static int op_exec_write(struct exec *e, struct call *c, const void *data, size_t size,
                         bool is_last)
{
        struct fake_exec *x = container_of(e, struct handle, exec)->x;
        int r = enter(FAKE_EXEC_WRITE, c);
        char *in;

        if (r < 0)
                return r;
        mutex_lock(&fake.lock);
        in = realloc(x->in, x->in_size + size + 1);
        if (in) {
                x->in = in;
                if (size > 0)
                        memcpy(in + x->in_size, data, size);
                x->in_size += size;
                x->has_eof |= is_last;
        }
        cond_broadcast(&fake.changed);
        mutex_unlock(&fake.lock);
        return in ? 0 : -ENOMEM;
}

static int op_exec_signal(struct exec *e, struct call *c, int signal)
{
        struct fake_exec *x = container_of(e, struct handle, exec)->x;
        int r = enter(FAKE_EXEC_SIGNAL, c);

        mutex_lock(&fake.lock);
        if (r == 0 && x->signal_count < SIGNALS)
                x->signals[x->signal_count++] = signal;
        mutex_unlock(&fake.lock);
        return r;
}

static void op_exec_release(struct exec *e)
{
        struct handle *h = container_of(e, struct handle, exec);

        mutex_lock(&fake.lock);
        while (h->x->is_busy)
                cond_wait(&fake.changed, &fake.lock);
        h->x->sink = NULL;
        mutex_unlock(&fake.lock);
        free(h);
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
        .exec_start = op_exec_start,
        .exec_attach = op_exec_attach,
        .exec_write = op_exec_write,
        .exec_signal = op_exec_signal,
        .exec_release = op_exec_release,
        .root = op_root,
        .is_quiet = op_is_quiet,
};

void fake_reset(uint32_t traits)
{
        if (!fake.is_set_up) {
                mutex_init(&fake.lock);
                cond_init(&fake.changed);
        }
        fake.is_set_up = true;
        mutex_lock(&fake.lock);
        for (unsigned i = 0; i < fake.exec_count; i++) {
                struct fake_exec *x = &fake.execs[i];

                free(x->log[0].data);
                free(x->log[1].data);
                free(x->in);
                for (size_t k = 0; k < x->env_count; k++) {
                        free(x->env[k].key);
                        free(x->env[k].value);
                }
        }
        fake.exec_count = fake.box_count = 0;
        memset(fake.fail_count, 0, sizeof(fake.fail_count));
        memset(fake.hangs, 0, sizeof(fake.hangs));
        memset(fake.was_cancelled, 0, sizeof(fake.was_cancelled));
        memset(fake.calls, 0, sizeof(fake.calls));
        fake.ops = full;
        fake.ops.traits = traits;
        mutex_unlock(&fake.lock);
}

struct provider_ops *fake_ops(void)
{
        return &fake.ops;
}

const struct provider_ops *fake_find(const char *kind)
{
        return strcmp(kind, "fake") == 0 ? &fake.ops : NULL;
}

int fake_open(const char *kind, const struct provider_config *config, struct call *c,
              struct provider **ret)
{
        struct provider *p;
        int r = enter(FAKE_OPEN, c);

        (void)kind;
        if (r < 0)
                return r;
        p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->ops = &fake.ops;
        p->allow = config->allow;
        (void)snprintf(p->instance, sizeof(p->instance), "%s", config->instance);
        fake.listener = config->listener;
        *ret = p;
        return 0;
}

void fake_fail(enum fake_op op, int code, int count)
{
        mutex_lock(&fake.lock);
        fake.fail[op] = code;
        fake.fail_count[op] = code ? count : 0;
        mutex_unlock(&fake.lock);
}

void fake_hang(enum fake_op op, bool on)
{
        mutex_lock(&fake.lock);
        fake.hangs[op] = on;
        cond_broadcast(&fake.changed);
        mutex_unlock(&fake.lock);
}

unsigned fake_calls(enum fake_op op)
{
        unsigned n;

        mutex_lock(&fake.lock);
        n = fake.calls[op];
        mutex_unlock(&fake.lock);
        return n;
}

bool fake_was_cancelled(enum fake_op op)
{
        bool was;

        mutex_lock(&fake.lock);
        was = fake.was_cancelled[op];
        mutex_unlock(&fake.lock);
        return was;
}

unsigned fake_count(void)
{
        unsigned n = 0;

        mutex_lock(&fake.lock);
        for (unsigned i = 0; i < fake.box_count; i++)
                n += fake.boxes[i].exists;
        mutex_unlock(&fake.lock);
        return n;
}

const char *fake_id(const char *name)
{
        const char *id = "";

        mutex_lock(&fake.lock);
        for (unsigned i = 0; i < fake.box_count; i++)
                if (strcmp(fake.boxes[i].name, name) == 0)
                        id = fake.boxes[i].id;
        mutex_unlock(&fake.lock);
        return id;
}

bool fake_exists(const char *id)
{
        const struct fake_box *b;
        bool exists;

        mutex_lock(&fake.lock);
        b = find_locked(id);
        exists = b && b->exists;
        mutex_unlock(&fake.lock);
        return exists;
}

const char *fake_add(const char *name, bool is_listed)
{
        struct fake_box *b;

        mutex_lock(&fake.lock);
        b = add_locked(name, "");
        b->is_listed = is_listed;
        mutex_unlock(&fake.lock);
        return b->id;
}

void fake_set_state(const char *id, enum box_state state, const char *sentence)
{
        struct fake_box *b;

        mutex_lock(&fake.lock);
        b = get_locked(id);
        b->status.state = state;
        (void)snprintf(b->status.sentence, sizeof(b->status.sentence), "%s", sentence);
        if (state == BOX_GONE)
                b->exists = false;
        mutex_unlock(&fake.lock);
}

void fake_news(const char *id)
{
        fake.listener.box_changed(fake.listener.ctx, id);
}

struct spec fake_spec(const char *id)
{
        struct spec spec = {0};
        const struct fake_box *b;

        mutex_lock(&fake.lock);
        b = find_locked(id);
        if (b)
                spec = b->spec;
        mutex_unlock(&fake.lock);
        return spec;
}

const char *fake_text(const char *id, enum setting x)
{
        const struct fake_box *b;

        mutex_lock(&fake.lock);
        b = find_locked(id);
        mutex_unlock(&fake.lock);
        return b ? b->text[x] : "";
}

struct fake_exec *fake_exec(const char *id, uint64_t number)
{
        struct fake_exec *x;

        mutex_lock(&fake.lock);
        x = find_exec_locked(id, number);
        mutex_unlock(&fake.lock);
        return x;
}

const char *fake_exec_command(struct fake_exec *x)
{
        return x->command;
}

const char *fake_exec_env(struct fake_exec *x, const char *key)
{
        for (size_t i = 0; i < x->env_count; i++)
                if (strcmp(x->env[i].key, key) == 0)
                        return x->env[i].value;
        return NULL;
}

uint64_t fake_exec_timeout_ns(struct fake_exec *x)
{
        return x->timeout_ns;
}

bool fake_exec_is_attached(struct fake_exec *x)
{
        bool is_attached;

        mutex_lock(&fake.lock);
        is_attached = x->sink != NULL;
        mutex_unlock(&fake.lock);
        return is_attached;
}

void fake_exec_print(struct fake_exec *x, enum exec_stream stream, const void *data, size_t size)
{
        struct exec_sink *to = lock_sink(x);
        uint64_t offset = x->log[stream].first + x->log[stream].size;
        char *log = realloc(x->log[stream].data, x->log[stream].size + size);

        if (!log)
                abort();
        memcpy(log + x->log[stream].size, data, size);
        x->log[stream].data = log;
        x->log[stream].size += size;
        if (to) {
                to->output(to, stream, offset, data, size);
                unlock_sink(x);
        }
}

void fake_exec_skip(struct fake_exec *x, enum exec_stream stream, size_t size)
{
        x->log[stream].first += x->log[stream].size + size;
        x->log[stream].size = 0;
}

void fake_exec_end_with(struct fake_exec *x, const struct exec_end *end)
{
        struct exec_sink *to = lock_sink(x);

        x->end = *end;
        x->has_ended = true;
        if (to) {
                to->end(to, end);
                unlock_sink(x);
        }
}

void fake_exec_end(struct fake_exec *x, enum exec_end_kind kind, int value)
{
        fake_exec_end_with(x, &(struct exec_end){.kind = kind, .value = value});
}

void fake_exec_forget(struct fake_exec *x)
{
        mutex_lock(&fake.lock);
        x->is_forgotten = true;
        mutex_unlock(&fake.lock);
}

void fake_exec_take(struct fake_exec *x, uint64_t total)
{
        struct exec_sink *to = lock_sink(x);

        if (to) {
                to->stdin_taken(to, total);
                unlock_sink(x);
        }
}

size_t fake_exec_stdin(struct fake_exec *x, char *to, size_t size, bool *ret_eof)
{
        size_t n;

        mutex_lock(&fake.lock);
        n = x->in_size;
        if (n > 0 && size > 0)
                memcpy(to, x->in, n < size ? n : size);
        *ret_eof = x->has_eof;
        mutex_unlock(&fake.lock);
        return n;
}

unsigned fake_exec_signals(struct fake_exec *x, int *signals, unsigned count)
{
        unsigned n;

        mutex_lock(&fake.lock);
        n = x->signal_count;
        for (unsigned i = 0; i < n && i < count; i++)
                signals[i] = x->signals[i];
        mutex_unlock(&fake.lock);
        return n;
}
