/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/agent/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/buf.h"

static void put_u32(unsigned char *to, uint32_t value)
{
        for (unsigned i = 0; i < 4; i++)
                to[i] = (unsigned char)(value >> 8 * i);
}

static uint32_t get_u32(const unsigned char *from)
{
        return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
               (uint32_t)from[3] << 24;
}

void wire_head_put(unsigned char to[WIRE_HEAD], const struct wire_head *head)
{
        put_u32(to, head->size);
        put_u32(to + 4, head->id);
        put_u32(to + 8, head->type);
}

void wire_head_get(const unsigned char from[WIRE_HEAD], struct wire_head *ret)
{
        *ret = (struct wire_head){get_u32(from), get_u32(from + 4), get_u32(from + 8)};
}

/* ---- out ---- */

void wire_begin(struct wire_out *o, struct buf *to, uint32_t id, enum wire_type type)
{
        const struct wire_head head = {.id = id, .type = type};
        unsigned char bytes[WIRE_HEAD];

        *o = (struct wire_out){.to = to, .at = to->size};
        wire_head_put(bytes, &head);
        wire_bytes(o, bytes, sizeof(bytes));
}

int wire_end(struct wire_out *o)
{
        size_t size = o->to->size - o->at;

        if (o->error == 0 && size - WIRE_HEAD > WIRE_PAYLOAD_MAX)
                o->error = -E2BIG;
        if (o->error == 0)
                put_u32((unsigned char *)o->to->data + o->at, (uint32_t)(size - WIRE_HEAD));
        else
                o->to->size = o->at;
        return o->error;
}

void wire_bytes(struct wire_out *o, const void *data, size_t size)
{
        if (o->error == 0 && size > 0)
                o->error = buf_add(o->to, data, size);
}

void wire_u32(struct wire_out *o, uint32_t value)
{
        unsigned char bytes[4];

        put_u32(bytes, value);
        wire_bytes(o, bytes, sizeof(bytes));
}

void wire_u64(struct wire_out *o, uint64_t value)
{
        unsigned char bytes[8];

        put_u32(bytes, (uint32_t)value);
        put_u32(bytes + 4, (uint32_t)(value >> 32));
        wire_bytes(o, bytes, sizeof(bytes));
}

void wire_time(struct wire_out *o, struct timespec t)
{
        wire_u64(o, (uint64_t)t.tv_sec);
        wire_u32(o, (uint32_t)t.tv_nsec);
}

void wire_text(struct wire_out *o, const char *text)
{
        size_t size = text ? strlen(text) : 0;

        if (size > WIRE_PAYLOAD_MAX) {
                o->error = o->error == 0 ? -E2BIG : o->error;
                return;
        }
        wire_u32(o, (uint32_t)size);
        wire_bytes(o, text ? text : "", size + 1);
}

void wire_stat(struct wire_out *o, const struct stat *st)
{
        wire_u32(o, st->st_mode);
        wire_u64(o, (uint64_t)st->st_size);
        wire_u64(o, st->st_ino);
        wire_u64(o, st->st_nlink);
        wire_u64(o, (uint64_t)st->st_blocks);
        wire_time(o, st->st_atim);
        wire_time(o, st->st_mtim);
        wire_time(o, st->st_ctim);
}

void wire_statfs(struct wire_out *o, const struct statvfs *s)
{
        wire_u64(o, s->f_bsize);
        wire_u64(o, s->f_frsize);
        wire_u64(o, s->f_blocks);
        wire_u64(o, s->f_bfree);
        wire_u64(o, s->f_bavail);
        wire_u64(o, s->f_files);
        wire_u64(o, s->f_ffree);
        wire_u64(o, s->f_favail);
        wire_u64(o, s->f_namemax);
}

void wire_change(struct wire_out *o, uint32_t index, const struct change *x)
{
        wire_u32(o, index);
        wire_u32(o, (uint32_t)x->kind);
        wire_text(o, x->path);
        wire_text(o, x->to);
        wire_u32(o, x->flags);
        wire_u32(o, x->what);
        wire_u32(o, x->mode);
        wire_u64(o, x->size);
        wire_time(o, x->atime);
        wire_time(o, x->mtime);
        wire_u32(o, x->from != NULL);
        wire_u64(o, x->from ? x->from->size : 0);
        wire_u32(o, (uint32_t)x->extent_count);
        for (size_t i = 0; i < x->extent_count; i++) {
                wire_u64(o, x->extents[i].offset);
                wire_u64(o, x->extents[i].size);
        }
}

/* ---- in ---- */

static const unsigned char *take(struct wire_in *in, size_t size)
{
        const unsigned char *at = in->at;

        if (in->is_bad || in->left < size) {
                in->is_bad = true;
                return NULL;
        }
        in->at += size;
        in->left -= size;
        return at;
}

uint32_t wire_take_u32(struct wire_in *in)
{
        const unsigned char *at = take(in, 4);

        return at ? get_u32(at) : 0;
}

uint64_t wire_take_u64(struct wire_in *in)
{
        uint64_t low = wire_take_u32(in);

        return low | (uint64_t)wire_take_u32(in) << 32;
}

struct timespec wire_take_time(struct wire_in *in)
{
        struct timespec t = {.tv_sec = (time_t)wire_take_u64(in)};
        uint32_t ns = wire_take_u32(in);

        if (ns > 999999999)
                in->is_bad = true;
        else
                t.tv_nsec = (long)ns;
        return t;
}

const char *wire_take_text(struct wire_in *in)
{
        size_t size = wire_take_u32(in);
        const unsigned char *at = size < WIRE_PAYLOAD_MAX ? take(in, size + 1) : NULL;

        if (!at || memchr(at, '\0', size + 1) != at + size) {
                in->is_bad = true;
                return "";
        }
        return (const char *)at;
}

static uint64_t take_size(struct wire_in *in)
{
        uint64_t value = wire_take_u64(in);

        if (value > INT64_MAX) {
                in->is_bad = true;
                return 0;
        }
        return value;
}

static bool is_type(mode_t mode)
{
        return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) ||
               S_ISSOCK(mode) || S_ISBLK(mode) || S_ISCHR(mode);
}

void wire_take_stat(struct wire_in *in, struct stat *ret)
{
        *ret = (struct stat){.st_mode = wire_take_u32(in)};
        ret->st_size = (off_t)take_size(in);
        ret->st_ino = wire_take_u64(in);
        ret->st_nlink = wire_take_u64(in);
        ret->st_blocks = (blkcnt_t)take_size(in);
        ret->st_atim = wire_take_time(in);
        ret->st_mtim = wire_take_time(in);
        ret->st_ctim = wire_take_time(in);
        if (!is_type(ret->st_mode) || (ret->st_mode & ~(mode_t)(S_IFMT | 07777)) != 0)
                in->is_bad = true;
}

void wire_take_statfs(struct wire_in *in, struct statvfs *ret)
{
        *ret = (struct statvfs){.f_bsize = wire_take_u64(in)};
        ret->f_frsize = wire_take_u64(in);
        ret->f_blocks = wire_take_u64(in);
        ret->f_bfree = wire_take_u64(in);
        ret->f_bavail = wire_take_u64(in);
        ret->f_files = wire_take_u64(in);
        ret->f_ffree = wire_take_u64(in);
        ret->f_favail = wire_take_u64(in);
        ret->f_namemax = wire_take_u64(in);
}

static int take_extents(struct wire_in *in, size_t count, struct wire_changing *ret)
{
        struct change *x = &ret->x;

        if (count > in->left / 16)
                return -EPROTO;
        if (count > 0 && !(ret->extents = calloc(count, sizeof(*ret->extents))))
                return -ENOMEM;
        for (size_t i = 0; i < count; i++) {
                struct file_extent *e = &ret->extents[i];

                e->offset = take_size(in);
                e->size = take_size(in);
                if (e->size > INT64_MAX - e->offset || e->size > INT64_MAX - ret->content_size)
                        in->is_bad = true;
                else
                        ret->content_size += e->size;
        }
        x->extents = ret->extents;
        x->extent_count = count;
        return 0;
}

int wire_take_change(struct wire_in *in, struct wire_changing *ret)
{
        struct change *x = &ret->x;
        uint32_t kind;
        size_t count;
        int r;

        *ret = (struct wire_changing){.index = wire_take_u32(in)};
        kind = wire_take_u32(in);
        x->path = wire_take_text(in);
        x->to = wire_take_text(in);
        x->flags = wire_take_u32(in);
        x->what = wire_take_u32(in);
        x->mode = (mode_t)wire_take_u32(in);
        x->size = take_size(in);
        x->atime = wire_take_time(in);
        x->mtime = wire_take_time(in);
        ret->has_source = wire_take_u32(in) != 0;
        ret->source_size = take_size(in);
        count = wire_take_u32(in);
        if (in->is_bad || kind > CHANGE_SET || !wire_is_path(x->path, true))
                return -EPROTO;
        if ((kind == CHANGE_LINK || kind == CHANGE_RENAME) && !wire_is_path(x->to, false))
                return -EPROTO;
        x->kind = (enum change_kind)kind;
        r = take_extents(in, count, ret);
        if (r == 0 && count == 0 && kind == CHANGE_STORE)
                ret->content_size = ret->source_size;
        if (r == 0 && (in->is_bad || (ret->content_size > 0 && !ret->has_source)))
                r = -EPROTO;
        if (r < 0) {
                free(ret->extents);
                ret->extents = NULL;
        }
        return r;
}

bool wire_is_whole(const struct wire_in *in)
{
        return !in->is_bad && in->left == 0;
}

bool wire_is_path(const char *path, bool or_root)
{
        if (!path[0])
                return or_root;
        while (true) {
                size_t n = strcspn(path, "/");

                if (n == 0 || (n == 1 && path[0] == '.') ||
                    (n == 2 && path[0] == '.' && path[1] == '.'))
                        return false;
                if (!path[n])
                        return true;
                path += n + 1;
        }
}

int wire_error(uint32_t told)
{
        static const int known[] = {ENOENT,    EACCES,     EPERM,        EEXIST, ENOTDIR, EISDIR,
                                    EINVAL,    ENOSPC,     EDQUOT,       EROFS,  EMFILE,  ENFILE,
                                    EMLINK,    ELOOP,      EXDEV,        EBUSY,  EFBIG,   ENOMEM,
                                    ENOTEMPTY, EOPNOTSUPP, ENAMETOOLONG, ETXTBSY};

        if (told == 0)
                return 0;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
                if (told == (uint32_t)known[i])
                        return -known[i];
        }
        return -EIO;
}
