/* SPDX-License-Identifier: Apache-2.0 */
/* Changes: cut into runs that can go together, see files_window.h. */

#include <errno.h>
#include <stdlib.h>

#include "providers/ssh/files_window.h"
#include "transport/base/cleanup.h"

#define AFTER_CHANGES 4096 /* whose files are looked at together; more only wait longer */

/* One run, from changes[*at] on. */
static int run_some(struct window *w, struct change *changes, unsigned char *marks, size_t count,
                    size_t *at)
{
        size_t first = *at;
        int r;

        while (*at < count && window_add(w, &changes[*at]))
                ++*at;
        r = *at > first ? window_run(w) : -ENOMEM;
        for (size_t i = 0; r == 0 && i < w->count; i++) {
                marks[first + i] = (w->items[i].has_ns ? AFTER_HAS_NS : 0) |
                                   (w->items[i].is_done ? AFTER_IS_TOLD : 0);
        }
        return r;
}

int ssh_apply(struct box *b, struct call *c, struct change *changes, size_t count)
{
        _cleanup_(ssh_spot_done) struct spot s = {0};
        _cleanup_(freep) unsigned char *marks = calloc(count + 1, 1);
        int r = marks ? ssh_spot_init(&s, b, c) : -ENOMEM;

        if (r == 0)
                left_remove(&s, c);
        for (size_t at = 0, looked = 0; r == 0 && at < count;) {
                struct window w;

                window_init(&w, &s, c);
                r = run_some(&w, changes, marks, count, &at);
                window_done(&w);
                if (r == 0 && (at == count || at - looked >= AFTER_CHANGES)) {
                        after_changes(&s, c, changes + looked, marks + looked, at - looked);
                        looked = at;
                }
        }
        return r;
}
