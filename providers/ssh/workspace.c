/* SPDX-License-Identifier: Apache-2.0 */
/* The directories of sandboxes on a host, seen by SFTP. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/box.h"
#include "providers/ssh/config.h"
#include "providers/ssh/host.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/sftp/batch.h"

#define PATH_SIZE 4096

/* ---- one of them ---- */

void seen_done(struct seen *s)
{
        marker_done(&s->marker);
}

/* The three files at once. */
enum { FILE_MARKER, FILE_HALF, FILE_STATE, FILE_COUNT };

struct looking {
        int errors[FILE_COUNT];
        struct buf texts[FILE_COUNT];
};

static int on_file(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                   size_t size)
{
        struct looking *l = ctx;

        (void)st;
        l->errors[index] = error == 0 ? buf_add(&l->texts[index], data, size) : error;
        return 0;
}

static bool is_absent(int error)
{
        return error == -ENOENT || error == -ENOTDIR;
}

/* What of the files says which it is; 1: not marked at all. */
static int judge(const struct looking *l, struct seen *ret)
{
        for (unsigned i = FILE_MARKER; i <= FILE_HALF; i++) {
                int r = l->errors[i];

                if (is_absent(r))
                        continue;
                if (r == 0)
                        r = marker_parse(buf_str(&l->texts[i]), l->texts[i].size, &ret->marker);
                if (r == -EBADMSG || r == -EFBIG || r == -EINVAL)
                        return 1;
                if (r < 0)
                        return r;
                ret->kind = i == FILE_MARKER ? SEEN_MARKED : SEEN_HALF;
                return 0;
        }
        return 1;
}

static void take_word(const struct looking *l, struct seen *ret)
{
        const char *text = buf_str(&l->texts[FILE_STATE]);

        if (l->errors[FILE_STATE] == 0)
                (void)snprintf(ret->word, sizeof(ret->word), "%.*s",
                               (int)(strcspn(text, "\n") < 15 ? strcspn(text, "\n") : 15), text);
}

static int look_inside(struct ssh_link *l, struct call *c, const char *dir, struct seen *ret)
{
        static const char *const names[FILE_COUNT] = {MARKER, MARKER_HALF, STATE_FILE};
        struct looking looking = {.errors = {-EPROTO, -EPROTO, -EPROTO}};
        const struct sftp_fetch_sink sink = {.file = on_file, .ctx = &looking};
        char paths[FILE_COUNT][PATH_SIZE];
        const char *list[FILE_COUNT];
        int r;

        for (unsigned i = 0; i < FILE_COUNT; i++) {
                looking.texts[i] = BUF_INIT(MARKER_MAX);
                list[i] = paths[i];
                if (snprintf(paths[i], PATH_SIZE, "%s/%s", dir, names[i]) >= PATH_SIZE)
                        return -ENAMETOOLONG;
        }
        r = sftp_fetch(l->sftp, c, list, FILE_COUNT, MARKER_MAX, &sink);
        if (r == 0)
                r = judge(&looking, ret);
        if (r == 0)
                take_word(&looking, ret);
        for (unsigned i = 0; i < FILE_COUNT; i++)
                buf_done(&looking.texts[i]);
        return r;
}

int workspace_look(struct ssh_link *l, struct call *c, const char *base, const char *key,
                   struct seen *ret)
{
        struct seen seen = {.kind = SEEN_UNMARKED};
        char dir[PATH_SIZE];
        struct stat st = {0};
        int r;

        if (snprintf(dir, sizeof(dir), "%s/%s", base, key) >= (int)sizeof(dir))
                return call_fail(c, -ENAMETOOLONG, "the path of the sandbox is too long");
        r = remote_stat(l, c, dir, &st);
        if (r == -ENOENT) {
                *ret = (struct seen){.kind = SEEN_MISSING};
                return 0;
        }
        if (r == 0 && S_ISDIR(st.st_mode))
                r = look_inside(l, c, dir, &seen);
        if (r == 1)
                r = 0; /* unmarked */
        if (r < 0) {
                seen_done(&seen);
                return call_fail_errno(c, r, "%s", dir);
        }
        *ret = seen;
        return 0;
}

enum box_state workspace_state(const char *word, const char **ret_raw)
{
        *ret_raw = "workspace";
        if (strcmp(word, "stopped") == 0) {
                *ret_raw = "stopped";
                return BOX_STOPPED;
        }
        if (strcmp(word, "paused") == 0) {
                *ret_raw = "paused";
                return BOX_PAUSED;
        }
        return word[0] ? BOX_UNKNOWN : BOX_RUNNING;
}

/* ---- the base ---- */

static int base_text(struct ssh_host *h, char *ret, size_t size)
{
        const char *base = h->config->base ? h->config->base : CONFIG_BASE;
        int n;

        mutex_lock(&h->lock);
        n = base[0] == '/' ? snprintf(ret, size, "%s", base)
                           : snprintf(ret, size, "%s/%s", h->home ? h->home : "", base);
        mutex_unlock(&h->lock);
        return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* mkdir -p, 0700. */
static int make_dirs(struct ssh_link *l, struct call *c, char *path)
{
        struct stat st = {0};
        int r = remote_stat(l, c, path, &st);

        if (r != -ENOENT)
                return r;
        for (char *at = path + 1; (at = strchr(at, '/')); at++) {
                *at = '\0';
                r = remote_mkdir(l, c, path, 0700);
                *at = '/';
                /* What can't be made may be there, behind a link; the last one tells. */
                if (r < 0 && r != -ENOTDIR && r != -EACCES && r != -EEXIST && r != -EIO &&
                    r != -EROFS)
                        return r;
        }
        return remote_mkdir(l, c, path, 0700);
}

static int resolve(struct ssh_link *l, struct call *c, const char *path, char *ret, size_t size)
{
        struct stat st = {0};
        int r = sftp_realpath(l->sftp, c, path, ret, size);

        if (r == 0 && ret[0] != '/')
                r = -EPROTO;
        if (r == 0)
                r = remote_stat(l, c, ret, &st); /* the last component may be missing */
        if (r < 0)
                return r;
        if (!S_ISDIR(st.st_mode))
                return -ENOTDIR;
        if ((st.st_mode & 0002) && !(st.st_mode & S_ISVTX))
                return call_fail(c, -EPERM, "%s: everybody can rename what is in it", ret);
        return 0;
}

int workspace_base(struct ssh_host *h, struct ssh_link *l, struct call *c, bool make, char **ret)
{
        char path[PATH_SIZE], real[PATH_SIZE];
        char *known = NULL;
        int r;

        mutex_lock(&h->lock);
        if (h->base && !make)
                known = strdup(h->base);
        mutex_unlock(&h->lock);
        if (known) {
                *ret = known;
                return 0;
        }
        r = base_text(h, path, sizeof(path));
        if (r == 0 && make)
                r = make_dirs(l, c, path);
        if (r == 0)
                r = resolve(l, c, path, real, sizeof(real));
        if (r < 0)
                return r == -EPERM && c->sentence[0] ? r : call_fail_errno(c, r, "%s", path);
        known = strdup(real);
        if (!known)
                return call_fail(c, -ENOMEM, "out of memory");
        mutex_lock(&h->lock);
        free(h->base);
        h->base = strdup(real); /* NULL: looked at again */
        mutex_unlock(&h->lock);
        *ret = known;
        return 0;
}
