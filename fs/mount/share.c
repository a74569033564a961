/* SPDX-License-Identifier: Apache-2.0 */
/* A line per group, which is there as long as one of it is at work. */

#include "fs/mount/share.h"

#include <errno.h>
#include <stdlib.h>

#include "transport/base/list.h"
#include "transport/base/map.h"

struct waiting {
        struct list link;
        uint64_t id;
};

struct share {
        struct list line;
        unsigned at_work, in_line;
        uint64_t moved_ns; /* when one last ended, or the first began */
};

struct shares {
        struct imap *all; /* group -> struct share */
};

struct shares *shares_new(void)
{
        struct shares *s = calloc(1, sizeof(*s));

        if (s)
                s->all = imap_new();
        if (s && !s->all) {
                free(s);
                return NULL;
        }
        return s;
}

static void share_free(struct share *x)
{
        list_for_each_safe (l, next, &x->line) {
                list_remove(l);
                free(list_entry(l, struct waiting, link));
        }
        free(x);
}

void shares_free(struct shares *s)
{
        size_t cursor = 0;
        struct share *x;

        if (!s)
                return;
        while ((x = imap_next(s->all, &cursor, NULL)))
                share_free(x);
        imap_free(s->all);
        free(s);
}

static struct share *get_share(struct shares *s, uint64_t group, uint64_t now_ns)
{
        struct share *x = imap_get(s->all, group);

        if (x)
                return x;
        x = calloc(1, sizeof(*x));
        if (!x)
                return NULL;
        list_init(&x->line);
        x->moved_ns = now_ns;
        if (imap_put(s->all, group, x) < 0) {
                free(x);
                return NULL;
        }
        return x;
}

int share_begin(struct shares *s, uint64_t group, uint64_t id, uint64_t now_ns)
{
        struct share *x = get_share(s, group, now_ns);
        struct waiting *w;

        if (!x)
                return -ENOMEM;
        if (x->at_work < SHARE_WORKERS) {
                x->at_work++;
                return 1;
        }
        if (x->at_work + x->in_line >= SHARE_STUCK && now_ns - x->moved_ns >= SHARE_STUCK_NS)
                return -EHOSTUNREACH;
        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        w->id = id;
        list_add_tail(&x->line, &w->link);
        x->in_line++;
        return 0;
}

uint64_t share_end(struct shares *s, uint64_t group, uint64_t now_ns)
{
        struct share *x = imap_get(s->all, group);
        struct waiting *w;
        uint64_t id;

        if (!x)
                return 0;
        x->moved_ns = now_ns;
        if (x->in_line == 0) {
                if (--x->at_work == 0) {
                        (void)imap_remove(s->all, group); /* it is x */
                        share_free(x);
                }
                return 0;
        }
        w = list_entry(x->line.next, struct waiting, link);
        id = w->id;
        list_remove(&w->link);
        x->in_line--;
        free(w);
        return id;
}
