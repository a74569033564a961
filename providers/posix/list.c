/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings, breadth first: the directories of one level are a queue of paths, opened from the
 * workspace each, so that depth costs neither stack nor descriptors.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "providers/posix/place.h"
#include "providers/posix/posix.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"

#define QUEUE_MAX ((size_t)64 << 20) /* bytes of paths of one level */

struct lister {
        const struct place *place;
        struct call *call;
        const struct file_listing *what;
        struct file_list_sink *to;
        struct buf below; /* directories of the next level: paths with their NUL */
        struct buf path; /* of the entry at hand, below the one that was asked for */
        size_t told;
        bool is_full; /* entries_max was reached */
        bool is_partial; /* the directory at hand has entries that can't be looked at */
};

static bool is_skipped(const struct file_listing *what, const char *name)
{
        for (const char *const *s = what->skip; s && *s; s++) {
                if (strcmp(*s, name) == 0)
                        return true;
        }
        return false;
}

static int join(struct buf *to, const char *dir, const char *name)
{
        buf_clear(to);
        return dir[0] ? buf_addf(to, "%s/%s", dir, name) : buf_add_str(to, name);
}

/* One that vanished meanwhile is left out. */
static int tell(struct lister *l, int fd, const char *dir, const char *name, unsigned depth)
{
        char target[PATH_MAX];
        struct stat st;
        ssize_t n = -1;
        int r;

        if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
                l->is_partial |= errno != ENOENT;
                return 0;
        }
        if (S_ISLNK(st.st_mode)) {
                n = readlinkat(fd, name, target, sizeof(target) - 1);
                target[n > 0 ? n : 0] = '\0';
        }
        r = join(&l->path, dir, name);
        if (r == 0)
                r = l->to->entry(l->to, buf_str(&l->path), &st, n >= 0 ? target : NULL);
        l->told++;
        if (r == 0 && S_ISDIR(st.st_mode) && depth < l->what->depth && !is_skipped(l->what, name))
                r = buf_add(&l->below, buf_str(&l->path), l->path.size + 1);
        return r;
}

static int list_opened(struct lister *l, DIR *dir, const char *path, unsigned depth)
{
        const struct dirent *entry;
        int r = 0;

        l->is_partial = false;
        while (r == 0 && (errno = 0, entry = readdir(dir))) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                    place_is_temp(entry->d_name))
                        continue;
                l->is_full = l->what->entries_max > 0 && l->told >= l->what->entries_max;
                if (l->is_full)
                        return 0;
                r = call_check(l->call);
                if (r == 0)
                        r = tell(l, dirfd(dir), path, entry->d_name, depth);
        }
        if (r != 0 || errno != 0)
                return r != 0 ? r : -errno;
        return l->is_partial ? 0 : l->to->listed(l->to, path);
}

static int list_one(struct lister *l, const char *path, unsigned depth)
{
        const char *base = l->what->path;
        _cleanup_(buf_done) struct buf whole = BUF_INIT(QUEUE_MAX);
        _cleanup_(closedirp) DIR *dir = NULL;
        int fd, r = path[0] ? join(&whole, base, path) : buf_add_str(&whole, base);

        if (r < 0)
                return r;
        fd = place_open(l->place, buf_str(&whole), O_RDONLY | O_DIRECTORY);
        if (fd < 0)
                return path[0] ? 0 : fd; /* one below that can't be read is not listed */
        if (!path[0]) {
                struct stat st;

                r = fstat(fd, &st) < 0 ? -errno : l->to->entry(l->to, "", &st, NULL);
        }
        dir = r == 0 ? fdopendir(fd) : NULL;
        if (!dir) {
                closep(&fd);
                return r != 0 ? r : -ENOMEM;
        }
        return list_opened(l, dir, path, depth);
}

static int list_level(struct lister *l, const struct buf *paths, unsigned depth)
{
        int r = 0;

        for (size_t at = 0; r == 0 && at < paths->size && !l->is_full;
             at += strlen(paths->data + at) + 1)
                r = list_one(l, paths->data + at, depth);
        return r;
}

static int list_all(struct lister *l)
{
        int r = list_one(l, "", 1);

        for (unsigned depth = 2; r == 0 && l->below.size > 0 && !l->is_full; depth++) {
                _cleanup_(buf_done) struct buf level = l->below;

                l->below = BUF_INIT(QUEUE_MAX);
                r = list_level(l, &level, depth);
        }
        return r;
}

int posix_list(const struct place *p, struct call *c, const struct file_listing *what,
               struct file_list_sink *to)
{
        struct lister l = {
                .place = p,
                .call = c,
                .what = what,
                .to = to,
                .below = BUF_INIT(QUEUE_MAX),
                .path = BUF_INIT(QUEUE_MAX),
        };
        int r = list_all(&l);

        buf_done(&l.below);
        buf_done(&l.path);
        return r;
}
