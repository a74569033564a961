/* SPDX-License-Identifier: Apache-2.0 */
/* Changes: cut into runs that can go together, see files_window.h. */

#include <errno.h>
#include <stdlib.h>

#include "providers/ssh/files_window.h"
#include "transport/base/cleanup.h"

#define AFTER_CHANGES 512 /* whose files are looked at together; more only wait longer */

/* One run, from changes[*at] on. */
static int run_some(struct window *w, struct change *changes, size_t count, size_t *at)
{
        while (*at < count && window_add(w, &changes[*at]))
                ++*at;
        return window_run(w);
}

int ssh_apply(struct box *b, struct call *c, struct change *changes, size_t count)
{
        _cleanup_(ssh_spot_done) struct spot s = {0};
        _cleanup_(freep) struct window *w = malloc(sizeof(*w));
        int r = w ? ssh_spot_init(&s, b, c) : -ENOMEM;

        if (r == 0)
                left_remove(&s, c);
        for (size_t at = 0, looked = 0; r == 0 && at < count;) {
                window_init(w, &s, c);
                r = run_some(w, changes, count, &at);
                window_done(w);
                if (r == 0 && (at == count || at - looked >= AFTER_CHANGES)) {
                        after_changes(&s, c, changes + looked, at - looked);
                        looked = at;
                }
        }
        return r;
}
