/* SPDX-License-Identifier: Apache-2.0 */
/* glibc's setfsuid and setfsgid concern the calling thread only, unlike setuid. */

#include "transport/base/creds.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/fsuid.h>
#include <unistd.h>

#define NOBODY_ASKED ((uid_t)-1) /* an invalid id changes nothing: the call then only tells */

void creds_init(struct creds *c, uid_t uid, gid_t gid)
{
        *c = (struct creds){.how = CREDS_OWN, .uid = uid, .gid = gid, .own_gid = getegid()};
        if (geteuid() != 0 || uid == 0)
                return;
        c->how = CREDS_FSUID;
        creds_enter(c);
        if ((uid_t)setfsuid(NOBODY_ASKED) != uid || (gid_t)setfsgid(NOBODY_ASKED) != gid) {
                creds_leave(c);
                c->how = CREDS_CHOWN;
                return;
        }
        creds_leave(c);
}

void creds_enter(const struct creds *c)
{
        if (c->how != CREDS_FSUID)
                return;
        /* first: afterwards we may no longer. Both were tried in creds_init */
        (void)setfsgid(c->gid);
        (void)setfsuid(c->uid);
}

void creds_leave(const struct creds *c)
{
        int saved = errno;

        if (c->how != CREDS_FSUID)
                return;
        (void)setfsuid(0);
        (void)setfsgid(c->own_gid);
        errno = saved;
}

bool creds_may_retry(const struct creds *c, int error)
{
        return c->how == CREDS_FSUID && (error == EACCES || error == EPERM);
}

int creds_give(const struct creds *c, int fd)
{
        return fchown(fd, c->uid, c->gid) < 0 ? -errno : 0;
}

int creds_give_at(const struct creds *c, int dir, const char *name)
{
        return fchownat(dir, name, c->uid, c->gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}
