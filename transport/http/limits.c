/* SPDX-License-Identifier: Apache-2.0 */
/* Deadlines of a request. */

#include "transport/http/limits.h"

#include <errno.h>

#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/http/http.h"

#define SLICE_NS (50 * NS_PER_MS) /* how late a cancel may be noticed */
#define SOURCE_NS (5 * NS_PER_MS) /* a source that had nothing is asked again */

void limits_init(struct limits *l, const struct http_request *q, const struct call *c)
{
        bool is_long = q->source || q->sink || q->silence_ns == NEVER_NS;
        uint64_t all_ns = q->all_ns ? q->all_ns : is_long ? NEVER_NS : HTTP_SILENCE_NS;
        uint64_t end_ns = clock_after(all_ns);

        for (size_t i = 0; q->all_ns == 0 && i < q->part_count; i++)
                if (q->parts[i].source)
                        end_ns = NEVER_NS;
        l->all_ns = end_ns;
        l->end_ns = end_ns < c->deadline_ns ? end_ns : c->deadline_ns;
        l->silence_ns = q->silence_ns ? q->silence_ns : HTTP_SILENCE_NS;
        limits_restart(l);
}

void limits_restart(struct limits *l)
{
        l->moved = 0;
        l->moved_ns = clock_mono_ns();
}

/*
 * The call's own deadline and ours mostly come together: at the end of the time half of the silence
 * tells as much of the server.
 */
static bool is_silent(const struct limits *l, uint64_t now_ns, bool is_end)
{
        uint64_t least_ns = is_end ? l->silence_ns / 2 : l->silence_ns;

        return l->silence_ns != NEVER_NS && now_ns - l->moved_ns >= least_ns;
}

int limits_check(struct limits *l, const struct call *c, uint64_t moved, bool is_ours,
                 bool *ret_is_silent)
{
        uint64_t now_ns = clock_mono_ns();
        int r = call_check(c);
        bool is_end;

        *ret_is_silent = false;
        if (moved != l->moved || is_ours) {
                l->moved = moved;
                l->moved_ns = now_ns;
        }
        l->end_ns = l->all_ns < c->deadline_ns ? l->all_ns : c->deadline_ns;
        is_end = r == -ETIMEDOUT || now_ns >= l->end_ns;
        if (r < 0 && !is_end)
                return r;
        *ret_is_silent = is_silent(l, now_ns, is_end);
        return is_end || *ret_is_silent ? -ETIMEDOUT : 0;
}

int limits_poll_ms(const struct limits *l, bool is_ours)
{
        uint64_t at_ns = clock_after(is_ours ? SOURCE_NS : SLICE_NS);

        if (l->end_ns < at_ns)
                at_ns = l->end_ns;
        if (l->silence_ns != NEVER_NS && l->moved_ns + l->silence_ns < at_ns)
                at_ns = l->moved_ns + l->silence_ns;
        return clock_poll_ms(at_ns);
}
