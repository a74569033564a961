/* SPDX-License-Identifier: Apache-2.0 */
/* Host uids of sandboxes; see uids.h. */

#include "providers/local/uids.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/call.h"
#include "transport/base/hash.h"
#include "transport/base/lock.h"
#include "transport/base/map.h"

struct uids {
        uid_t first; /* fixed after init */
        uint32_t count;
        struct mutex lock;
        struct imap *used; /* guarded by lock; values mean nothing */
};

/* Below 1000 are the system's own, and (uid_t)-1 means "unchanged". */
static int parse(const char *range, uid_t *ret_first, uint32_t *ret_count)
{
        char *end;
        unsigned long long first, count;

        if (range[0] < '0' || range[0] > '9')
                return -EINVAL;
        errno = 0;
        first = strtoull(range, &end, 10);
        if (*end != ':' || end[1] < '0' || end[1] > '9')
                return -EINVAL;
        count = strtoull(end + 1, &end, 10);
        if (*end || errno || first < 1000 || count < 1 || first >= UINT32_MAX ||
            count > UINT32_MAX - first)
                return -EINVAL;
        *ret_first = (uid_t)first;
        *ret_count = (uint32_t)count;
        return 0;
}

int uids_new(const char *range, struct call *c, struct uids **ret)
{
        struct uids *u;
        uid_t first;
        uint32_t count;

        if (parse(range, &first, &count) < 0)
                return call_fail(
                        c, -EINVAL,
                        "uid-range=%s: give FIRST:COUNT, from 1000, for instance " UIDS_DEFAULT,
                        range);
        u = calloc(1, sizeof(*u));
        if (u)
                u->used = imap_new();
        if (!u || !u->used) {
                free(u);
                return -ENOMEM;
        }
        u->first = first;
        u->count = count;
        mutex_init(&u->lock);
        *ret = u;
        return 0;
}

void uids_free(struct uids *u)
{
        if (!u)
                return;
        imap_free(u->used);
        mutex_done(&u->lock);
        free(u);
}

static int take_locked(struct uids *u, const char *key, uid_t *ret) REQUIRES(&u->lock)
{
        uint32_t start = hash32_text(key) % u->count;

        for (uint32_t i = 0; i < u->count; i++) {
                uid_t uid = u->first + (uid_t)(((uint64_t)start + i) % u->count);

                if (imap_get(u->used, uid))
                        continue;
                if (imap_put(u->used, uid, u) < 0)
                        return -ENOMEM;
                *ret = uid;
                return 0;
        }
        return -EDQUOT;
}

int uids_take(struct uids *u, const char *key, uid_t *ret)
{
        int r;

        mutex_lock(&u->lock);
        r = take_locked(u, key, ret);
        mutex_unlock(&u->lock);
        return r;
}

int uids_claim(struct uids *u, uid_t uid)
{
        int r;

        mutex_lock(&u->lock);
        r = imap_put(u->used, uid, u);
        mutex_unlock(&u->lock);
        return r;
}

void uids_give(struct uids *u, uid_t uid)
{
        mutex_lock(&u->lock);
        (void)imap_remove(u->used, uid);
        mutex_unlock(&u->lock);
}
