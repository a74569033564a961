/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pump: looks at all commands of a host that are due, together, so that their number doesn't
 * make round trips. Quickly at first, slower while nothing comes.
 *
 * A connection that is lost is no news: the next look goes over a new one, with back-off, from
 * where it was. Only what the host itself says ends a command.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/exec_host.h"
#include "providers/ssh/script.h"
#include "transport/base/cleanup.h"

#define LOOK_MAX 64 /* commands in one look */
#define PIECES_MAX 64 /* pieces of all of them in flight */
#define WINDOW_MAX 24 /* of one stream */
#define ROUNDS_MAX 8 /* in one look; then others are asked for, too */
#define SOON_NS (10 * NS_PER_MS)
#define LATE_NS (500 * NS_PER_MS)
#define STDIN_NS (40 * NS_PER_MS) /* the latest while stdin waits to be taken */
#define PROBE_MAX_NS NS_PER_S
#define AGAIN_NS NS_PER_S /* the host was not reachable */
#define CALL_NS (10 * NS_PER_S)

/* One command in a look. */
struct job {
        struct ssh_exec *x;
        bool is_end; /* all that is there is wanted, then the end */
        bool is_complete;
        bool has_failed; /* not now */
        bool has_more; /* a window came back full */
        bool got; /* anything */
};

struct look {
        struct exec_host *eh;
        struct call *c;
        struct ssh_link *link;
        struct job jobs[LOOK_MAX];
        size_t count;
        /* one batch */
        struct sftp_op ops[PIECES_MAX + LOOK_MAX * EXEC_FILES];
        size_t op_count;
        size_t pieces;
        uint32_t piece;
        char *memory; /* PIECES_MAX pieces */
        char took[LOOK_MAX][32];
};

/* ---- what is due ---- */

/* The ender's: its report brought all along, or nobody wants it any more. */
static bool is_enders(const struct ssh_exec *x)
{
        return !x->sink || (x->has_end && x->report.has_bytes &&
                            x->report.size[0] < SCRIPT_INLINE && x->report.size[1] < SCRIPT_INLINE);
}

static void claim_locked(struct look *l, uint64_t *next_ns)
{
        uint64_t now = clock_mono_ns();

        *next_ns = NEVER_NS;
        list_for_each (at, &l->eh->execs) {
                struct ssh_exec *x = container_of(at, struct ssh_exec, link);

                if (!x->is_followed || x->is_busy || is_enders(x))
                        continue;
                if (x->due_ns > now) {
                        if (x->due_ns < *next_ns)
                                *next_ns = x->due_ns;
                        continue;
                }
                if (l->count == LOOK_MAX)
                        continue;
                x->is_busy = true;
                x->refs++;
                l->jobs[l->count++] = (struct job){.x = x, .is_end = x->has_end};
        }
}

/* False: the end of the host. */
static bool claim(struct look *l)
{
        struct exec_host *eh = l->eh;
        bool is_ending;

        l->count = 0;
        mutex_lock(&eh->lock);
        for (;;) {
                uint64_t next_ns;

                is_ending = eh->is_ending;
                if (is_ending)
                        break;
                claim_locked(l, &next_ns);
                if (l->count > 0)
                        break;
                (void)cond_wait_until(&eh->changed, &eh->lock, next_ns);
        }
        mutex_unlock(&eh->lock);
        return !is_ending;
}

/* ---- probes ---- */

static void set_end(struct ssh_exec *x, struct job *j, const struct exec_end *end)
{
        mutex_lock(&x->host->lock);
        if (!x->has_end) {
                x->has_end = true;
                x->end = *end;
        }
        mutex_unlock(&x->host->lock);
        j->is_end = true;
}

static void take_probe(struct job *j, const char *line)
{
        struct exec_end end = {.kind = EXEC_END_LOST,
                               .sentence = "its supervisor on the host is gone"};
        struct ssh_exec *x = j->x;
        char what[16] = "";
        int r;

        if (strcmp(line, "dead") == 0) {
                set_end(x, j, &end);
                return;
        }
        if (strncmp(line, "rc ", 3) != 0)
                return;
        r = report_parse_rc(line + 3, &end, what);
        if (r == -EPROTO)
                return; /* half written */
        if (r < 0) {
                end.kind = EXEC_END_ERROR;
                (void)snprintf(end.sentence, sizeof(end.sentence), "%s: %s", what,
                               strerrordesc_np(-r));
        }
        set_end(x, j, &end);
}

static bool wants_probe(const struct job *j, uint64_t now)
{
        const struct ssh_exec *x = j->x;

        return !j->is_end && x->probe_ns <= now;
}

/* A job without a channel whose time has come; `to` gets them in order. */
static size_t find_probes(struct look *l, struct job *to[LOOK_MAX])
{
        uint64_t now = clock_mono_ns();
        size_t count = 0;

        mutex_lock(&l->eh->lock);
        for (size_t i = 0; i < l->count; i++) {
                if (wants_probe(&l->jobs[i], now))
                        to[count++] = &l->jobs[i];
        }
        mutex_unlock(&l->eh->lock);
        return count;
}

static void take_probes(struct job *const jobs[], size_t count, char *text)
{
        char *save = NULL, *line = strtok_r(text, "\n", &save);

        for (size_t i = 0; i < count && line; i++) {
                take_probe(jobs[i], line);
                line = strtok_r(NULL, "\n", &save);
        }
}

static void probe(struct look *l)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT((size_t)1 << 20);
        _cleanup_(buf_done) struct buf out = BUF_INIT(64 * 1024);
        const char *prefixes[LOOK_MAX];
        struct job *jobs[LOOK_MAX];
        size_t count = find_probes(l, jobs);
        int r, code = 0;

        if (count == 0)
                return;
        for (size_t i = 0; i < count; i++)
                prefixes[i] = jobs[i]->x->prefix;
        r = script_probe(&script, prefixes, count, host_known(l->eh->host));
        if (r == 0)
                r = shell_run_buf(l->eh->host->shell, l->c, buf_str(&script), &out, &code);
        if (r == 0 && code == 0 && out.size > 0)
                take_probes(jobs, count, out.data);
        mutex_lock(&l->eh->lock);
        for (size_t i = 0; i < count; i++) {
                struct ssh_exec *x = jobs[i]->x;

                x->probe_pause_ns = r < 0 ? AGAIN_NS : x->probe_pause_ns * 3 / 2;
                if (x->probe_pause_ns > PROBE_MAX_NS)
                        x->probe_pause_ns = PROBE_MAX_NS;
                x->probe_ns = clock_after(x->probe_pause_ns);
        }
        mutex_unlock(&l->eh->lock);
}

/* ---- files ---- */

static const char *const file_names[EXEC_FILES] = {"out", "err", "took"};

static void close_files(struct ssh_exec *x)
{
        for (unsigned i = 0; i < EXEC_FILES; i++) {
                if (x->handles[i].size > 0)
                        sftp_close_later(x->file_link->sftp, &x->handles[i]);
                x->handles[i].size = 0;
        }
        link_unref(x->file_link);
        x->file_link = NULL;
}

static struct sftp_op *add_op(struct look *l, struct job *j, enum sftp_type type, unsigned file)
{
        struct sftp_op *op = &l->ops[l->op_count++];

        *op = (struct sftp_op){.type = type, .ctx = j, .step = file};
        if (type != SFTP_OPEN)
                op->handle = j->x->handles[file];
        return op;
}

/* 0, or why nothing can be asked now. */
static int run_ops(struct look *l)
{
        int r = l->op_count > 0 ? sftp_run(l->link->sftp, l->c, l->ops, l->op_count) : 0;

        return r;
}

static void take_opened(struct look *l, char *const paths[])
{
        for (size_t i = 0; i < l->op_count; i++) {
                struct sftp_op *op = &l->ops[i];
                struct job *j = op->ctx;

                if (op->error == 0)
                        j->x->handles[op->step] = op->handle;
                else if (op->error != -ENOENT)
                        j->has_failed = true;
                else if (j->is_end && op->step != EXEC_TOOK)
                        j->is_complete = true; /* somebody removed it: nothing more comes */
                free(paths[i]);
        }
}

/* Stdin that is there but not taken. */
static bool awaits_taking(struct ssh_exec *x)
{
        bool awaits;

        mutex_lock(&x->host->lock);
        awaits = x->has_stdin && x->taken < x->input_at;
        mutex_unlock(&x->host->lock);
        return awaits;
}

static int open_files(struct look *l)
{
        char *paths[LOOK_MAX * EXEC_FILES];
        int r;

        l->op_count = 0;
        for (size_t i = 0; i < l->count; i++) {
                struct ssh_exec *x = l->jobs[i].x;

                if (x->file_link && x->file_link != l->link)
                        close_files(x);
                if (!x->file_link)
                        x->file_link = link_ref(l->link);
                for (unsigned f = 0; f < EXEC_FILES; f++) {
                        struct sftp_op *op;

                        if (x->handles[f].size > 0 || (f == EXEC_TOOK && !awaits_taking(x)))
                                continue;
                        if (asprintf(&paths[l->op_count], "%s.%s", x->prefix, file_names[f]) < 0)
                                paths[l->op_count] = NULL;
                        if (!paths[l->op_count])
                                continue; /* out of memory: at the next look */
                        op = add_op(l, &l->jobs[i], SFTP_OPEN, f);
                        op->path = paths[l->op_count - 1];
                        op->flags = SFTP_FOR_READ;
                }
        }
        r = run_ops(l);
        for (size_t i = 0; r < 0 && i < l->op_count; i++) {
                if (l->ops[i].error != 0)
                        l->ops[i].error = -EIO;
        }
        take_opened(l, paths);
        return r;
}

/*
 * How far this stream is read now: its first part while it runs; at the end also its tail, and what
 * is between is a gap, which the sink counts.
 */
static uint64_t limit(const struct job *j, unsigned f)
{
        struct ssh_exec *x = j->x;
        uint64_t size = x->size[f];

        if (!j->is_end)
                return EXEC_FETCH_MAX;
        if (size <= EXEC_FETCH_MAX + EXEC_TAIL)
                return size;
        if (x->given[f] < EXEC_FETCH_MAX)
                return EXEC_FETCH_MAX;
        if (x->given[f] < size - EXEC_TAIL) {
                mutex_lock(&x->host->lock);
                x->given[f] = size - EXEC_TAIL;
                mutex_unlock(&x->host->lock);
        }
        return size;
}

/* How much there is of those that have ended, or have printed too much. */
static int look_at_sizes(struct look *l)
{
        int r;

        l->op_count = 0;
        for (size_t i = 0; i < l->count; i++) {
                for (unsigned f = 0; f < 2; f++) {
                        const struct ssh_exec *x = l->jobs[i].x;

                        if (x->handles[f].size > 0 &&
                            (l->jobs[i].is_end || x->given[f] >= EXEC_FETCH_MAX))
                                (void)add_op(l, &l->jobs[i], SFTP_FSTAT, f);
                }
        }
        r = run_ops(l);
        if (r < 0)
                return r;
        for (size_t i = 0; i < l->op_count; i++) {
                struct job *j = l->ops[i].ctx;

                mutex_lock(&l->eh->lock);
                j->x->size[l->ops[i].step] =
                        l->ops[i].error == 0 ? (uint64_t)l->ops[i].st.st_size : 0;
                mutex_unlock(&l->eh->lock);
        }
        return 0;
}

static void add_reads(struct look *l, struct job *j, unsigned f)
{
        struct ssh_exec *x = j->x;
        uint64_t end = limit(j, f), at = x->given[f];

        if (x->window[f] == 0)
                x->window[f] = 1;
        for (unsigned i = 0; i < x->window[f] && l->pieces < PIECES_MAX && at < end; i++) {
                struct sftp_op *op = add_op(l, j, SFTP_READ, f);
                uint64_t left = end - at;

                op->offset = at;
                op->size = left < l->piece ? (uint32_t)left : l->piece;
                op->buffer = l->memory + l->pieces++ * l->piece;
                op->is_bulk = x->window[f] > 4;
                at += op->size;
        }
}

static void add_took(struct look *l, size_t index)
{
        struct sftp_op *op;

        if (l->jobs[index].x->handles[EXEC_TOOK].size == 0 || !awaits_taking(l->jobs[index].x))
                return;
        op = add_op(l, &l->jobs[index], SFTP_READ, EXEC_TOOK);
        op->buffer = l->took[index];
        op->size = sizeof(l->took[index]) - 1;
}

static void take_took(struct job *j, const struct sftp_op *op)
{
        char text[32];
        unsigned long long total;

        if (op->error != 0 || op->got == 0 || op->got >= sizeof(text))
                return;
        memcpy(text, op->buffer, op->got);
        text[op->got] = '\0';
        if (text[op->got - 1] != '\n')
                return; /* being written */
        total = strtoull(text, NULL, 10);
        mutex_lock(&j->x->host->lock);
        if (total > j->x->input_at)
                total = j->x->input_at;
        if (total > j->x->taken)
                j->x->taken = total;
        mutex_unlock(&j->x->host->lock);
}

static void take_read(struct job *j, const struct sftp_op *op)
{
        struct ssh_exec *x = j->x;
        unsigned f = op->step;

        if (op->error != 0) {
                j->has_failed = true;
                return;
        }
        if (op->offset != x->given[f])
                return; /* after one that was short: again at the next look */
        if (op->got > 0) {
                j->got = true;
                sink_output(x, f, op->offset, op->buffer, op->got);
        }
        if (op->got == op->size) {
                j->has_more = true;
                if (x->window[f] < WINDOW_MAX)
                        x->window[f] += 1 + x->window[f] / 4;
        } else {
                x->window[f] = 1;
                if (op->got == 0 && j->is_end) {
                        mutex_lock(&x->host->lock);
                        x->size[f] = x->given[f]; /* it was made shorter */
                        mutex_unlock(&x->host->lock);
                }
        }
}

static bool is_read(const struct job *j)
{
        const struct ssh_exec *x = j->x;

        for (unsigned f = 0; f < 2; f++) {
                if (x->handles[f].size > 0 && x->given[f] < x->size[f])
                        return false;
        }
        return true;
}

static bool is_wanted(struct ssh_exec *x)
{
        bool is_wanted;

        mutex_lock(&x->host->lock);
        is_wanted = x->sink != NULL;
        mutex_unlock(&x->host->lock);
        return is_wanted;
}

/* One round trip of reads. True: and more is known to be there. */
static int read_round(struct look *l, bool *more)
{
        int r;

        l->op_count = 0;
        l->pieces = 0;
        *more = false;
        for (size_t i = 0; i < l->count; i++) {
                struct job *j = &l->jobs[i];

                j->has_more = false;
                if (j->has_failed || j->is_complete)
                        continue;
                for (unsigned f = 0; f < 2; f++) {
                        if (j->x->handles[f].size > 0)
                                add_reads(l, j, f);
                }
                add_took(l, i);
        }
        r = run_ops(l);
        if (r < 0)
                return r;
        for (size_t i = 0; i < l->op_count; i++) {
                if (l->ops[i].step == EXEC_TOOK)
                        take_took(l->ops[i].ctx, &l->ops[i]);
                else
                        take_read(l->ops[i].ctx, &l->ops[i]);
        }
        for (size_t i = 0; i < l->count; i++) {
                struct job *j = &l->jobs[i];

                if (j->is_end && (is_read(j) || !is_wanted(j->x)))
                        j->is_complete = true;
                *more |= !j->has_failed && !j->is_complete && (j->is_end || j->has_more);
        }
        return 0;
}

static int read_files(struct look *l)
{
        bool more = true;
        int r = look_at_sizes(l);

        for (unsigned i = 0; r == 0 && more && i < ROUNDS_MAX; i++)
                r = read_round(l, &more);
        return r;
}

/* ---- a look ---- */

static int fetch(struct look *l)
{
        int r = host_link(l->eh->host, l->c, HOST_CONTROL, &l->link);

        if (r < 0)
                return r;
        l->piece = sftp_piece_max(l->link->sftp);
        l->memory = malloc((size_t)PIECES_MAX * l->piece);
        r = l->memory ? open_files(l) : -ENOMEM;
        if (r == 0)
                r = read_files(l);
        free(l->memory);
        l->memory = NULL;
        link_unref(l->link);
        l->link = NULL;
        return r;
}

static void tell_taken(struct ssh_exec *x)
{
        uint64_t taken;
        bool is_news;

        mutex_lock(&x->host->lock);
        taken = exec_taken_locked(x->host, x);
        is_news = taken > x->taken_told;
        x->taken_told = taken;
        mutex_unlock(&x->host->lock);
        if (is_news)
                sink_taken(x, taken);
}

static void plan(struct look *l, struct job *j, int r)
{
        struct ssh_exec *x = j->x;
        bool awaits = awaits_taking(x);

        mutex_lock(&l->eh->lock);
        if (r < 0 || j->has_failed) {
                x->due_ns = clock_after(AGAIN_NS);
        } else if (j->is_end || j->has_more || (x->has_end && !j->is_end)) {
                x->due_ns = 0;
        } else {
                x->pause_ns = j->got || x->pause_ns == 0 ? SOON_NS : x->pause_ns * 3 / 2;
                if (x->pause_ns > (awaits ? STDIN_NS : LATE_NS))
                        x->pause_ns = awaits ? STDIN_NS : LATE_NS;
                x->due_ns = clock_after(x->pause_ns);
                if (x->due_ns > x->probe_ns)
                        x->due_ns = x->probe_ns;
        }
        mutex_unlock(&l->eh->lock);
}

static void conclude(struct look *l, int r)
{
        for (size_t i = 0; i < l->count; i++) {
                struct job *j = &l->jobs[i];

                if (r < 0 && j->x->file_link && sftp_error(j->x->file_link->sftp, NULL, 0) < 0)
                        close_files(j->x);
                tell_taken(j->x);
                if (j->is_complete)
                        sink_end(j->x, &j->x->end);
                else
                        plan(l, j, r);
                exec_let_go(j->x);
        }
}

/* What needs no network; output of a report that isn't all of it needn't be fetched again. */
static void begin(struct look *l)
{
        for (size_t i = 0; i < l->count; i++) {
                tell_taken(l->jobs[i].x);
                if (l->jobs[i].is_end)
                        sink_inline(l->jobs[i].x);
        }
}

void *exec_pump(void *exec_host)
{
        struct look *l = calloc(1, sizeof(*l));
        struct call c;
        int r;

        if (!l)
                return NULL; /* nothing is fetched: as if the host was slow for ever */
        l->eh = exec_host;
        while (claim(l)) {
                l->c = &c;
                r = exec_call_begin(l->eh, EXEC_PUMP, &c, CALL_NS);
                if (r == 0) {
                        begin(l);
                        probe(l);
                        r = fetch(l);
                }
                exec_call_end(l->eh, EXEC_PUMP);
                conclude(l, r);
        }
        free(l);
        return NULL;
}
