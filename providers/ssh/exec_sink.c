/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of sinks: one at a time for each command, holding no lock, none after a release. */

#include "providers/ssh/exec_host.h"

/* The sink, or NULL when nobody wants to know; then to call_done. */
static struct exec_sink *call_begin(struct ssh_exec *x)
{
        struct exec_sink *sink;

        mutex_lock(&x->host->lock);
        sink = x->sink;
        if (sink) {
                x->is_calling = true;
                x->caller = pthread_self();
        }
        mutex_unlock(&x->host->lock);
        return sink;
}

static void call_done(struct ssh_exec *x)
{
        mutex_lock(&x->host->lock);
        x->is_calling = false;
        cond_broadcast(&x->host->changed);
        mutex_unlock(&x->host->lock);
}

void sink_output(struct ssh_exec *x, unsigned stream, uint64_t offset, const void *data,
                 size_t size)
{
        struct exec_sink *sink = call_begin(x);

        if (!sink)
                return;
        sink->output(sink, (enum exec_stream)stream, offset, data, size);
        mutex_lock(&x->host->lock);
        x->given[stream] = offset + size;
        mutex_unlock(&x->host->lock);
        call_done(x);
}

void sink_taken(struct ssh_exec *x, uint64_t total)
{
        struct exec_sink *sink = call_begin(x);

        if (!sink)
                return;
        if (sink->stdin_taken)
                sink->stdin_taken(sink, total);
        call_done(x);
}

void sink_inline(struct ssh_exec *x)
{
        for (unsigned i = 0; x->report.has_bytes && i < 2; i++) {
                size_t known;

                if (x->given[i] >= x->report.size[i])
                        continue;
                known = (size_t)x->given[i];
                sink_output(x, i, known, x->report.data[i] + known, x->report.size[i] - known);
        }
}

void sink_end(struct ssh_exec *x, const struct exec_end *end)
{
        struct exec_sink *sink = call_begin(x);

        mutex_lock(&x->host->lock);
        x->is_ended = true;
        x->sink = NULL;
        mutex_unlock(&x->host->lock);
        if (!sink)
                return;
        sink->end(sink, end);
        call_done(x);
}
