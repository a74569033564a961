/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of the sandboxes of fake.h. */

#include "tests/unit/sandbox/fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/sandbox/fake_state.h"

struct handle {
        struct exec exec;
        struct fake_exec *x;
};

static struct fake_exec *find_exec_locked(const char *id, uint64_t number)
{
        for (unsigned i = 0; i < fake_state.exec_count; i++)
                if (strcmp(fake_state.execs[i].box_id, id) == 0 &&
                    fake_state.execs[i].number == number)
                        return &fake_state.execs[i];
        return NULL;
}

/*
 * The sink, kept from being released until unlock_sink; NULL: nobody is attached. What is noted
 * under the same lock is told now by the caller, or by catch_up to whoever attaches next.
 */
static struct exec_sink *lock_sink_locked(struct fake_exec *x) REQUIRES(fake_state.lock)
{
        while (x->is_busy)
                cond_wait(&fake_state.changed, &fake_state.lock);
        x->is_busy = x->sink != NULL;
        return x->sink;
}

static struct exec_sink *lock_sink(struct fake_exec *x)
{
        struct exec_sink *sink;

        mutex_lock(&fake_state.lock);
        sink = lock_sink_locked(x);
        mutex_unlock(&fake_state.lock);
        return sink;
}

static void unlock_sink(struct fake_exec *x)
{
        mutex_lock(&fake_state.lock);
        x->is_busy = false;
        cond_broadcast(&fake_state.changed);
        mutex_unlock(&fake_state.lock);
}

/* The sink is locked from its beginning where something is to be told first. */
static int new_handle(struct box *b, struct fake_exec *x, struct exec_sink *to, bool is_locked,
                      struct exec **ret)
{
        struct handle *h = calloc(1, sizeof(*h));

        if (!h)
                return -ENOMEM;
        h->exec.box = b;
        h->exec.pid = 100 + (int64_t)x->number;
        (void)snprintf(h->exec.id, sizeof(h->exec.id), "x%llu", (unsigned long long)x->number);
        h->x = x;
        mutex_lock(&fake_state.lock);
        while (x->is_busy)
                cond_wait(&fake_state.changed, &fake_state.lock);
        x->sink = to;
        x->is_busy = is_locked;
        mutex_unlock(&fake_state.lock);
        *ret = &h->exec;
        return 0;
}

/* Tells what is known to whoever attached just now; the sink is locked. */
static void catch_up(struct fake_exec *x, struct exec_sink *to, const uint64_t have[2])
{
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
        mutex_lock(&fake_state.lock);
        if (fake_state.exec_count == EXECS)
                abort();
        x = &fake_state.execs[fake_state.exec_count];
        *x = (struct fake_exec){.number = in->number, .timeout_ns = in->timeout_ns};
        (void)snprintf(x->box_id, sizeof(x->box_id), "%s", b->id);
        (void)snprintf(x->command, sizeof(x->command), "%s", in->argv[last]);
        for (size_t i = 0; i < in->env_count && i < ENV; i++)
                x->env[x->env_count++] = (struct pair){.key = strdup(in->env[i].key),
                                                       .value = strdup(in->env[i].value)};
        fake_state.exec_count++;
        mutex_unlock(&fake_state.lock);
        return x;
}

int fake_op_exec_start(struct box *b, struct call *c, const struct exec_req *in,
                       struct exec_sink *to, struct exec **ret)
{
        struct fake_exec *x;
        int r = fake_enter(FAKE_EXEC_START, c);

        /* -ETIMEDOUT: it may run all the same, so it does. */
        if (r < 0 && r != -ETIMEDOUT)
                return r;
        x = record_exec(b, in);
        if (r < 0)
                return r;
        r = new_handle(b, x, to, false, ret);
        if (r == 0 && strncmp(x->command, "now ", 4) == 0)
                fake_exec_end(x, EXEC_END_CODE, x->command[4] - '0');
        return r;
}

int fake_op_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                        const uint64_t have[2], struct exec_sink *to, struct exec **ret)
{
        struct fake_exec *x;
        int r = fake_enter(FAKE_EXEC_ATTACH, c);

        (void)id;
        if (r < 0)
                return r;
        mutex_lock(&fake_state.lock);
        x = find_exec_locked(b->id, number);
        if (!x || x->is_forgotten)
                r = -ENOENT;
        mutex_unlock(&fake_state.lock);
        if (r == 0)
                r = new_handle(b, x, to, true, ret);
        if (r == 0)
                catch_up(x, to, have);
        return r;
}

int fake_op_exec_write(struct exec *e, struct call *c, const void *data, size_t size, bool is_last)
{
        struct fake_exec *x = container_of(e, struct handle, exec)->x;
        int r = fake_enter(FAKE_EXEC_WRITE, c);
        char *in;

        if (r < 0)
                return r;
        mutex_lock(&fake_state.lock);
        in = realloc(x->in, x->in_size + size + 1);
        if (in) {
                x->in = in;
                if (size > 0)
                        memcpy(in + x->in_size, data, size);
                x->in_size += size;
                x->has_eof |= is_last;
        }
        cond_broadcast(&fake_state.changed);
        mutex_unlock(&fake_state.lock);
        return in ? 0 : -ENOMEM;
}

int fake_op_exec_signal(struct exec *e, struct call *c, int signal)
{
        struct fake_exec *x = container_of(e, struct handle, exec)->x;
        int r = fake_enter(FAKE_EXEC_SIGNAL, c);

        mutex_lock(&fake_state.lock);
        if (r == 0 && x->signal_count < SIGNALS)
                x->signals[x->signal_count++] = signal;
        mutex_unlock(&fake_state.lock);
        return r;
}

void fake_op_exec_release(struct exec *e)
{
        struct handle *h = container_of(e, struct handle, exec);

        mutex_lock(&fake_state.lock);
        while (h->x->is_busy)
                cond_wait(&fake_state.changed, &fake_state.lock);
        h->x->sink = NULL;
        mutex_unlock(&fake_state.lock);
        free(h);
}

void fake_forget_execs_locked(void)
{
        for (unsigned i = 0; i < fake_state.exec_count; i++) {
                struct fake_exec *x = &fake_state.execs[i];

                free(x->log[0].data);
                free(x->log[1].data);
                free(x->in);
                for (size_t k = 0; k < x->env_count; k++) {
                        free(x->env[k].key);
                        free(x->env[k].value);
                }
        }
        fake_state.exec_count = 0;
}

/* ---- what tests call ---- */

struct fake_exec *fake_exec(const char *id, uint64_t number)
{
        struct fake_exec *x;

        mutex_lock(&fake_state.lock);
        x = find_exec_locked(id, number);
        mutex_unlock(&fake_state.lock);
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

        mutex_lock(&fake_state.lock);
        is_attached = x->sink != NULL;
        mutex_unlock(&fake_state.lock);
        return is_attached;
}

void fake_exec_print(struct fake_exec *x, enum exec_stream stream, const void *data, size_t size)
{
        struct exec_sink *to;
        uint64_t offset;
        char *log;

        mutex_lock(&fake_state.lock);
        to = lock_sink_locked(x);
        offset = x->log[stream].first + x->log[stream].size;
        log = realloc(x->log[stream].data, x->log[stream].size + size);
        if (!log)
                abort();
        memcpy(log + x->log[stream].size, data, size);
        x->log[stream].data = log;
        x->log[stream].size += size;
        mutex_unlock(&fake_state.lock);
        if (to) {
                to->output(to, stream, offset, data, size);
                unlock_sink(x);
        }
}

void fake_exec_skip(struct fake_exec *x, enum exec_stream stream, size_t size)
{
        mutex_lock(&fake_state.lock);
        while (x->is_busy)
                cond_wait(&fake_state.changed, &fake_state.lock);
        x->log[stream].first += x->log[stream].size + size;
        x->log[stream].size = 0;
        mutex_unlock(&fake_state.lock);
}

void fake_exec_end_with(struct fake_exec *x, const struct exec_end *end)
{
        struct exec_sink *to;

        mutex_lock(&fake_state.lock);
        to = lock_sink_locked(x);
        x->end = *end;
        x->has_ended = true;
        mutex_unlock(&fake_state.lock);
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
        mutex_lock(&fake_state.lock);
        x->is_forgotten = true;
        mutex_unlock(&fake_state.lock);
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

        mutex_lock(&fake_state.lock);
        n = x->in_size;
        if (n > 0 && size > 0)
                memcpy(to, x->in, n < size ? n : size);
        *ret_eof = x->has_eof;
        mutex_unlock(&fake_state.lock);
        return n;
}

unsigned fake_exec_signals(struct fake_exec *x, int *signals, unsigned count)
{
        unsigned n;

        mutex_lock(&fake_state.lock);
        n = x->signal_count;
        for (unsigned i = 0; i < n && i < count; i++)
                signals[i] = x->signals[i];
        mutex_unlock(&fake_state.lock);
        return n;
}
