/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads. The ender tells ends that need nothing from the network, and closes what nobody
 * wants any more: it never waits for the host. The errand boy feeds stdin, opens spare channels and
 * removes leavings: he does little else than wait for it.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/exec_host.h"
#include "providers/ssh/script.h"
#include "transport/base/cleanup.h"
#include "transport/sftp/batch.h"

#define CALL_NS (10 * NS_PER_S)
#define FEED_MAX ((size_t)1024 * 1024) /* in one go: it takes three round trips */
#define FEED_SCRIPT_MAX ((size_t)4096) /* within the script */
#define FEED_AGAIN_NS (500 * NS_PER_MS)
#define LEAVING_AGAIN_NS (5 * NS_PER_S)
#define PUNCH_STEP (UINT64_C(16) << 20)
#define PUNCH_KEEP (UINT64_C(8) << 20) /* fetched a moment ago: our disk may lose it yet */

/* ---- the ender ---- */

static struct ssh_exec *next_end_locked(struct exec_host *eh) REQUIRES(eh->lock)
{
        list_for_each (at, &eh->execs) {
                struct ssh_exec *x = container_of(at, struct ssh_exec, link);

                if (!x->is_followed || x->is_busy)
                        continue;
                if (!x->sink ||
                    (x->has_end && x->report.has_bytes && x->report.size[0] < SCRIPT_INLINE &&
                     x->report.size[1] < SCRIPT_INLINE)) {
                        x->is_busy = true;
                        x->refs++;
                        return x;
                }
        }
        return NULL;
}

static void finish(struct ssh_exec *x)
{
        bool has_end;

        mutex_lock(&x->host->lock);
        has_end = x->sink && x->has_end;
        mutex_unlock(&x->host->lock);
        if (has_end) {
                sink_inline(x);
                sink_end(x, &x->end);
        }
        exec_let_go(x);
}

void *exec_ender(void *exec_host)
{
        struct exec_host *eh = exec_host;

        mutex_lock(&eh->lock);
        for (;;) {
                struct ssh_exec *x = next_end_locked(eh);

                if (x) {
                        mutex_unlock(&eh->lock);
                        finish(x);
                        mutex_lock(&eh->lock);
                } else if (eh->is_ending && list_is_empty(&eh->execs)) {
                        break;
                } else {
                        cond_wait(&eh->changed, &eh->lock);
                }
        }
        mutex_unlock(&eh->lock);
        return NULL;
}

/* ---- stdin ---- */

static struct ssh_exec *next_feed_locked(struct exec_host *eh, uint64_t *next_ns) REQUIRES(eh->lock)
{
        uint64_t now = clock_mono_ns();

        list_for_each (at, &eh->execs) {
                struct ssh_exec *x = container_of(at, struct ssh_exec, link);

                if (!x->is_followed || !x->has_stdin || x->has_end || !x->sink)
                        continue;
                if (x->input.size == 0 && (!x->is_last || x->is_last_fed))
                        continue;
                if (x->feed_ns <= now) {
                        x->refs++;
                        return x;
                }
                if (x->feed_ns < *next_ns)
                        *next_ns = x->feed_ns;
        }
        return NULL;
}

/* `size` bytes are there; or r, an error, or 3: nobody will ever read them. */
static void fed_locked(struct exec_host *eh, struct ssh_exec *x, size_t size, bool is_last, int r)
        REQUIRES(eh->lock)
{
        if (r < 0) {
                x->feed_ns = clock_after(FEED_AGAIN_NS);
                return;
        }
        x->is_feeding = false;
        buf_drop(&x->input, size);
        x->input_at += size;
        x->is_last_fed |= is_last;
        if (r > 0)
                x->taken = x->input_at;
        x->pause_ns = 0;
        x->due_ns = clock_after(2 * NS_PER_MS);
        exec_wake_locked(eh);
}

/* One script's worth of stdin. */
struct piece {
        struct ssh_exec *x;
        char *data;
        size_t size;
        uint64_t offset;
        bool is_last;
};

static int write_piece(struct piece *p, struct call *c, struct ssh_link *link, const char *path)
{
        struct sftp_op ops[FEED_MAX / 16384 + 1];
        struct sftp_handle handle;
        uint32_t part = sftp_piece_max(link->sftp);
        size_t count = 0;
        int r = sftp_open(link->sftp, c, path, SFTP_FOR_WRITE | SFTP_CREATE | SFTP_TRUNCATE, 0600,
                          &handle);

        if (r < 0)
                return r;
        for (size_t at = 0; at < p->size; at += part, count++) {
                ops[count] = (struct sftp_op){.type = SFTP_WRITE, .handle = handle, .offset = at};
                ops[count].data = p->data + at;
                ops[count].size = p->size - at < part ? (uint32_t)(p->size - at) : part;
        }
        r = sftp_run(link->sftp, c, ops, count);
        for (size_t i = 0; r == 0 && i < count; i++)
                r = ops[i].error;
        sftp_close_later(link->sftp, &handle);
        return r;
}

/* A large one, by SFTP: a shell takes its time to read a long script. */
static int upload_piece(struct exec_host *eh, struct piece *p, struct call *c)
{
        struct ssh_link *link = NULL;
        char *path = NULL;
        int r = host_link(eh->host, c, HOST_CONTROL, &link);

        if (r < 0)
                return r;
        r = asprintf(&path, "%s.feed", p->x->prefix) < 0 ? -ENOMEM : 0;
        if (r == 0)
                r = write_piece(p, c, link, path);
        free(path);
        link_unref(link);
        return r;
}

/* 0, -errno, or 3. */
static int feed_piece(struct exec_host *eh, struct piece *p, struct call *c)
{
        _cleanup_(buf_wipe) struct buf script = BUF_INIT(64 * 1024);
        bool is_large = p->size > FEED_SCRIPT_MAX;
        int code = 0, r = is_large ? upload_piece(eh, p, c) : 0;

        if (r == 0)
                r = script_feed(&script, p->x->prefix, p->offset, is_large ? NULL : p->data,
                                p->size, p->is_last);
        if (r == 0)
                r = shell_run_buf(eh->host->shell, c, buf_str(&script), NULL, &code);
        if (r < 0)
                return r;
        return code == 3 ? 3 : code != 0 ? -EIO : 0;
}

static void take_piece_locked(struct exec_host *eh, struct piece *p, uint64_t *next_ns)
        REQUIRES(eh->lock)
{
        struct ssh_exec *x = next_feed_locked(eh, next_ns);

        if (!x)
                return;
        p->x = x;
        p->offset = x->input_at;
        /* A repeat is of the same piece: the feeder may have taken that already. */
        if (!x->is_feeding)
                x->piece = x->input.size < FEED_MAX ? x->input.size : FEED_MAX;
        x->is_feeding = true;
        p->size = x->piece;
        p->is_last = x->is_last && p->size == x->input.size;
        p->data = malloc(p->size + 1);
        if (p->data && p->size > 0)
                memcpy(p->data, x->input.data, p->size);
}

/* True: there was something to feed. */
static bool feed(struct exec_host *eh, uint64_t *next_ns)
{
        struct piece p = {0};
        struct call c;
        int r;

        mutex_lock(&eh->lock);
        take_piece_locked(eh, &p, next_ns);
        mutex_unlock(&eh->lock);
        if (!p.x)
                return false;
        r = exec_call_begin(eh, EXEC_ERRAND, &c, CALL_NS);
        if (r == 0)
                r = p.data ? feed_piece(eh, &p, &c) : -ENOMEM;
        exec_call_end(eh, EXEC_ERRAND);
        if (p.data)
                explicit_bzero(p.data, p.size);
        free(p.data);
        mutex_lock(&eh->lock);
        fed_locked(eh, p.x, p.size, p.is_last, r);
        exec_unref_locked(eh, p.x);
        mutex_unlock(&eh->lock);
        return true;
}

/* ---- the host's disk ---- */

/* Up to where nobody will read it again: given a while ago, or skipped. */
static uint64_t spent(const struct ssh_exec *x, unsigned f)
{
        uint64_t at = x->given[f];

        if (at >= EXEC_FETCH_MAX && x->size[f] > at)
                at = x->size[f];
        return at > PUNCH_KEEP ? (at - PUNCH_KEEP) / PUNCH_STEP * PUNCH_STEP : 0;
}

static struct ssh_exec *next_punch_locked(struct exec_host *eh, unsigned *ret_stream,
                                          uint64_t *ret_size) REQUIRES(eh->lock)
{
        list_for_each (at, &eh->execs) {
                struct ssh_exec *x = container_of(at, struct ssh_exec, link);

                for (unsigned f = 0; f < 2; f++) {
                        uint64_t size = spent(x, f);

                        if (!x->is_followed || x->has_end || size < x->punched[f] + PUNCH_STEP)
                                continue;
                        x->punched[f] = size; /* tried once */
                        x->refs++;
                        *ret_stream = f;
                        *ret_size = size;
                        return x;
                }
        }
        return NULL;
}

static bool punch(struct exec_host *eh)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(64 * 1024);
        struct ssh_exec *x;
        unsigned stream = 0;
        uint64_t size = 0;
        struct call c;
        int code;

        if (!(host_known(eh->host) & HOST_FALLOCATE))
                return false;
        mutex_lock(&eh->lock);
        x = next_punch_locked(eh, &stream, &size);
        mutex_unlock(&eh->lock);
        if (!x)
                return false;
        if (script_punch(&script, x->prefix, stream, size) == 0 &&
            exec_call_begin(eh, EXEC_ERRAND, &c, CALL_NS) == 0)
                (void)shell_run_buf(eh->host->shell, &c, buf_str(&script), NULL,
                                    &code); /* else it keeps its space */
        exec_call_end(eh, EXEC_ERRAND);
        mutex_lock(&eh->lock);
        exec_unref_locked(eh, x);
        mutex_unlock(&eh->lock);
        return true;
}

/* ---- leavings ---- */

static struct leaving *next_leaving_locked(struct exec_host *eh, uint64_t *next_ns)
        REQUIRES(eh->lock)
{
        struct leaving *l;

        if (list_is_empty(&eh->leavings))
                return NULL;
        if (eh->leaving_retry_ns > clock_mono_ns()) {
                if (eh->leaving_retry_ns < *next_ns)
                        *next_ns = eh->leaving_retry_ns;
                return NULL;
        }
        l = container_of(eh->leavings.next, struct leaving, link);
        list_remove(&l->link);
        return l;
}

static bool remove_leaving(struct exec_host *eh, uint64_t *next_ns)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(64 * 1024);
        struct leaving *l;
        struct call c;
        int r, code;

        mutex_lock(&eh->lock);
        l = next_leaving_locked(eh, next_ns);
        mutex_unlock(&eh->lock);
        if (!l)
                return false;
        r = exec_call_begin(eh, EXEC_ERRAND, &c, CALL_NS);
        if (r == 0)
                r = script_remove(&script, l->run, host_known(eh->host),
                                  (const char(*)[SCRIPT_NAME_SIZE])l->names, l->count);
        if (r == 0)
                r = shell_run_buf(eh->host->shell, &c, buf_str(&script), NULL, &code);
        exec_call_end(eh, EXEC_ERRAND);
        mutex_lock(&eh->lock);
        if (r < 0 && r != -EOPNOTSUPP && r != -E2BIG) {
                eh->leaving_retry_ns = clock_after(LEAVING_AGAIN_NS);
                list_add_tail(&eh->leavings, &l->link);
                l = NULL;
        }
        mutex_unlock(&eh->lock);
        if (l)
                free(l->run);
        free(l);
        return true;
}

/* ---- the errand boy ---- */

void *exec_errand(void *exec_host)
{
        struct exec_host *eh = exec_host;
        bool is_ending = false;

        while (!is_ending) {
                uint64_t next_ns = NEVER_NS, spare_ns, news;

                mutex_lock(&eh->lock);
                news = eh->news;
                mutex_unlock(&eh->lock);
                if (feed(eh, &next_ns))
                        continue;
                spare_ns = channel_errand(eh);
                if (spare_ns == 0 || remove_leaving(eh, &next_ns) || punch(eh))
                        spare_ns = 0;
                if (spare_ns < next_ns)
                        next_ns = spare_ns;
                mutex_lock(&eh->lock);
                if (next_ns > 0 && !eh->is_ending && eh->news == news)
                        (void)cond_wait_until(&eh->changed, &eh->lock, next_ns);
                is_ending = eh->is_ending;
                mutex_unlock(&eh->lock);
        }
        return NULL;
}
