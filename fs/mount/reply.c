/* SPDX-License-Identifier: Apache-2.0 */
/* See reply.h. libfuse's own result matters only where something is given back: -ENOENT, the
 * kernel no longer wants the answer. */

#include "fs/mount/reply.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/mount/files.h"
#include "fs/mount/request.h"
#include "fs/tree/tree.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

/* ENOSYS would switch the operation off for the whole mount. */
static int shown_error(int code)
{
        return code == -ENOSYS ? EOPNOTSUPP : -code;
}

int reply_err(struct request *r, int code)
{
        if (code < 0 && log_wants("fuse"))
                log_debug("fuse", "%llu %s node %llx: %s%s%s", (unsigned long long)r->op.call.id,
                          r->what, (unsigned long long)r->a.node, errno_name(code),
                          r->op.call.sentence[0] ? ": " : "", r->op.call.sentence);
        if (code < 0)
                tree_op_failed(&r->op, code);
        (void)fuse_reply_err(r->fuse, shown_error(code)); /* nobody is left to tell */
        return 0;
}

static double seconds(uint64_t ns)
{
        return (double)ns / (double)NS_PER_S;
}

void reply_fill_entry(struct fuse_entry_param *to, const struct tree_entry *e)
{
        *to = (struct fuse_entry_param){
                .ino = e->node,
                .generation = e->generation,
                .attr = e->st,
                .attr_timeout = seconds(e->attr_ttl_ns),
                .entry_timeout = seconds(e->entry_ttl_ns),
        };
}

int reply_entry(struct mount *m, struct request *r, int code, const struct tree_entry *e)
{
        struct fuse_entry_param p;

        if (code == -EINPROGRESS)
                return code;
        if (code < 0)
                return reply_err(r, code);
        reply_fill_entry(&p, e);
        if (fuse_reply_entry(r->fuse, &p) < 0 && e->node != 0)
                tree_forget(m->tree, e->node, 1);
        return 0;
}

int reply_attr(struct request *r, int code, const struct tree_entry *e)
{
        if (code == -EINPROGRESS)
                return code;
        if (code < 0)
                return reply_err(r, code);
        (void)fuse_reply_attr(r->fuse, &e->st, seconds(e->attr_ttl_ns)); /* nothing to give back */
        return 0;
}

int reply_text(struct request *r, int code, const char *text)
{
        if (code == -EINPROGRESS)
                return code;
        if (code < 0)
                return reply_err(r, code);
        (void)fuse_reply_readlink(r->fuse, text); /* nothing to give back */
        return 0;
}

int reply_data(struct request *r, ssize_t code, const void *data)
{
        if (code == -EINPROGRESS)
                return -EINPROGRESS;
        if (code < 0)
                return reply_err(r, (int)code);
        (void)fuse_reply_buf(r->fuse, data, (size_t)code); /* nothing to give back */
        return 0;
}

int reply_count(struct request *r, ssize_t code)
{
        if (code == -EINPROGRESS)
                return -EINPROGRESS;
        if (code < 0)
                return reply_err(r, (int)code);
        (void)fuse_reply_write(r->fuse, (size_t)code); /* nothing to give back */
        return 0;
}

int reply_offset(struct request *r, int64_t code)
{
        if (code == -EINPROGRESS)
                return -EINPROGRESS;
        if (code < 0)
                return reply_err(r, (int)code);
        (void)fuse_reply_lseek(r->fuse, code); /* nothing to give back */
        return 0;
}

int reply_statfs(struct request *r, int code, const struct statvfs *st)
{
        if (code == -EINPROGRESS)
                return code;
        if (code < 0)
                return reply_err(r, code);
        (void)fuse_reply_statfs(r->fuse, st); /* nothing to give back */
        return 0;
}

static int send_opened(struct mount *m, struct request *r, const struct tree_entry *e,
                       const struct file *file, const struct tree_opened *opened)
{
        struct fuse_file_info fi = {
                .fh = (uintptr_t)file,
                .direct_io = opened->is_direct,
                .keep_cache = opened->keep_cache,
                .noflush = opened->no_flush,
        };
        struct fuse_entry_param p;

        (void)m;
        if (!e)
                return fuse_reply_open(r->fuse, &fi);
        reply_fill_entry(&p, e);
        return fuse_reply_create(r->fuse, &p, &fi);
}

int reply_opened(struct mount *m, struct request *r, int code, const struct tree_entry *e,
                 uint64_t node, const struct tree_opened *opened)
{
        struct file *file;

        if (code == -EINPROGRESS)
                return code;
        if (code < 0)
                return reply_err(r, code);
        code = files_add(m->files, opened->handle, node, false, &file);
        if (code < 0) {
                tree_release(m->tree, opened->handle);
                (void)reply_err(r, code); /* it is answered, that is all */
        } else {
                file->is_direct = opened->is_direct;
                code = send_opened(m, r, e, file, opened);
                if (code < 0)
                        files_release(m->files, m->tree, file);
        }
        if (code < 0 && e)
                tree_forget(m->tree, e->node, 1);
        return 0;
}

int reply_opendir(struct mount *m, struct request *r, int code, struct handle *handle)
{
        struct fuse_file_info fi = {0};
        struct file *file;

        if (code == -EINPROGRESS)
                return code;
        if (code < 0)
                return reply_err(r, code);
        code = files_add(m->files, handle, r->a.node, true, &file);
        if (code < 0) {
                tree_releasedir(m->tree, handle);
                return reply_err(r, code);
        }
        fi.fh = (uintptr_t)file;
        if (fuse_reply_open(r->fuse, &fi) < 0)
                files_release(m->files, m->tree, file);
        return 0;
}
