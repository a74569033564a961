/* SPDX-License-Identifier: Apache-2.0 */
/* What the server says. Every length is checked before it is used. */

#include "transport/sftp/wire.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/sftp/names.h"

/* ---- numbers and texts; false, and nothing taken, when there is not as much ---- */

static uint32_t get32(const unsigned char *at)
{
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool take32(struct wire_bytes *from, uint32_t *ret)
{
        if (from->size < 4)
                return false;
        *ret = get32(from->data);
        from->data += 4;
        from->size -= 4;
        return true;
}

static bool take64(struct wire_bytes *from, uint64_t *ret)
{
        uint32_t high, low;

        if (from->size < 8 || !take32(from, &high) || !take32(from, &low))
                return false;
        *ret = (uint64_t)high << 32 | low;
        return true;
}

static bool take_bytes(struct wire_bytes *from, struct wire_bytes *ret)
{
        uint32_t size;

        if (from->size < 4)
                return false;
        size = get32(from->data);
        if (size > from->size - 4)
                return false;
        *ret = (struct wire_bytes){from->data + 4, size};
        from->data += 4 + (size_t)size;
        from->size -= 4 + (size_t)size;
        return true;
}

static bool is_text(struct wire_bytes bytes, const char *text)
{
        return bytes.size == strlen(text) && memcmp(bytes.data, text, bytes.size) == 0;
}

/* ---- packets ---- */

void wire_in_init(struct wire_in *in)
{
        *in = (struct wire_in){.part = BUF_INIT(4 + WIRE_PACKET_MAX)};
}

void wire_in_done(struct wire_in *in)
{
        buf_done(&in->part);
}

/* Move as many as are missing to `want` bytes in all. 1 when they are there, 0, -ENOMEM. */
static int gather(struct wire_in *in, const unsigned char **data, size_t *size, size_t want)
{
        size_t n = want - in->part.size < *size ? want - in->part.size : *size;
        int r = n > 0 ? buf_add(&in->part, *data, n) : 0;

        if (r < 0)
                return -ENOMEM;
        *data += n;
        *size -= n;
        return in->part.size == want;
}

static bool length_is_good(uint32_t length)
{
        return length >= 5 && length <= WIRE_PACKET_MAX; /* a kind, and a number */
}

int wire_in_next(struct wire_in *in, const unsigned char **data, size_t *size,
                 const unsigned char **ret, size_t *ret_size)
{
        uint32_t length;
        int r;

        if (in->is_given) {
                buf_clear(&in->part);
                in->is_given = false;
        }
        if (in->part.size == 0 && *size >= 4) { /* whole in what came: no copy */
                length = get32(*data);
                if (!length_is_good(length))
                        return -EPROTO;
                if (*size - 4 >= length) {
                        *ret = *data + 4;
                        *ret_size = length;
                        *data += 4 + (size_t)length;
                        *size -= 4 + (size_t)length;
                        return 1;
                }
        }
        if (in->part.size < 4) {
                r = gather(in, data, size, 4);
                if (r <= 0)
                        return r;
        }
        length = get32((const unsigned char *)in->part.data);
        if (!length_is_good(length))
                return -EPROTO;
        r = gather(in, data, size, 4 + (size_t)length);
        if (r <= 0)
                return r;
        in->is_given = true;
        *ret = (const unsigned char *)in->part.data + 4;
        *ret_size = length;
        return 1;
}

/* ---- answers ---- */

#define ATTR_EXTENDED 0x80000000u
#define ATTR_KNOWN (SFTP_SET_SIZE | SFTP_SET_OWNER | SFTP_SET_MODE | SFTP_SET_TIMES | ATTR_EXTENDED)

static bool take_extended(struct wire_bytes *from)
{
        uint32_t count;

        if (!take32(from, &count) || count > from->size / 8)
                return false;
        for (uint32_t i = 0; i < count; i++) {
                struct wire_bytes name, value;

                if (!take_bytes(from, &name) || !take_bytes(from, &value))
                        return false;
        }
        return true;
}

static bool take_attrs(struct wire_bytes *from, struct stat *ret)
{
        uint32_t what, uid = 0, gid = 0, mode = 0, atime = 0, mtime = 0;
        uint64_t size = 0;

        if (!take32(from, &what) || (what & ~ATTR_KNOWN))
                return false;
        if ((what & SFTP_SET_SIZE) && !take64(from, &size))
                return false;
        if ((what & SFTP_SET_OWNER) && (!take32(from, &uid) || !take32(from, &gid)))
                return false;
        if ((what & SFTP_SET_MODE) && !take32(from, &mode))
                return false;
        if ((what & SFTP_SET_TIMES) && (!take32(from, &atime) || !take32(from, &mtime)))
                return false;
        if ((what & ATTR_EXTENDED) && !take_extended(from))
                return false;
        *ret = (struct stat){
                .st_size = size > INT64_MAX ? INT64_MAX : (off_t)size,
                .st_uid = uid,
                .st_gid = gid,
                .st_mode = mode & (S_IFMT | 07777),
                .st_atim.tv_sec = atime,
                .st_mtim.tv_sec = mtime,
        };
        return true;
}

/* The kind of a file by the first character of its line as `ls -l` has it. */
static mode_t kind_of(struct wire_bytes line)
{
        static const struct {
                char letter;
                mode_t kind;
        } kinds[] = {{'-', S_IFREG},  {'d', S_IFDIR}, {'l', S_IFLNK}, {'p', S_IFIFO},
                     {'s', S_IFSOCK}, {'c', S_IFCHR}, {'b', S_IFBLK}};

        for (size_t i = 0; line.size > 9 && i < sizeof(kinds) / sizeof(*kinds); i++) {
                if (line.data[0] == (unsigned char)kinds[i].letter)
                        return kinds[i].kind;
        }
        return 0;
}

static bool take_name(struct wire_bytes *left, struct wire_bytes *ret_name, struct stat *ret_st)
{
        struct wire_bytes line;

        if (!take_bytes(left, ret_name) || !take_bytes(left, &line) || !take_attrs(left, ret_st))
                return false;
        if (!(ret_st->st_mode & S_IFMT))
                ret_st->st_mode |= kind_of(line);
        return true;
}

bool wire_next_name(struct wire_bytes *left, struct wire_bytes *ret_name, struct stat *ret_st)
{
        return left->size > 0 && take_name(left, ret_name, ret_st);
}

static bool read_names(struct wire_bytes *body, struct wire_answer *ret)
{
        struct wire_bytes left, name;
        struct stat st;

        if (!take32(body, &ret->count) || ret->count == 0)
                return false;
        left = *body;
        for (uint32_t i = 0; i < ret->count; i++) {
                if (!take_name(&left, &name, &st))
                        return false;
        }
        ret->bytes = *body;
        body->size = left.size;
        return true;
}

int wire_read_answer(const unsigned char *packet, size_t size, struct wire_answer *ret)
{
        struct wire_bytes body = {packet, size};
        struct wire_answer a = {0};
        bool is_good;

        if (size < 5)
                return -EPROTO;
        a.kind = (enum wire_kind)packet[0];
        body.data++;
        body.size--;
        is_good = take32(&body, &a.id);
        switch ((unsigned)a.kind) {
        case WIRE_STATUS: /* a sentence and its language follow, or, of old servers, don't */
                is_good = is_good && take32(&body, &a.status);
                body.size = 0;
                break;
        case WIRE_HANDLE:
                is_good = is_good && take_bytes(&body, &a.bytes) && a.bytes.size > 0 &&
                          a.bytes.size <= SFTP_HANDLE_MAX;
                break;
        case WIRE_DATA: is_good = is_good && take_bytes(&body, &a.bytes); break;
        case WIRE_NAME: is_good = is_good && read_names(&body, &a); break;
        case WIRE_ATTRS: is_good = is_good && take_attrs(&body, &a.st); break;
        case WIRE_EXTENDED_REPLY:
                a.bytes = body;
                body.size = 0;
                break;
        default: is_good = false;
        }
        if (!is_good || body.size > 0)
                return -EPROTO;
        *ret = a;
        return 0;
}

static unsigned feature_of(struct wire_bytes name, struct wire_bytes data)
{
        static const struct {
                const char *name, *data;
                unsigned feature;
        } known[] = {
                {"posix-rename@openssh.com", "1", SFTP_CAN_POSIX_RENAME},
                {"hardlink@openssh.com", "1", SFTP_CAN_HARDLINK},
                {"fsync@openssh.com", "1", SFTP_CAN_FSYNC},
                {"statvfs@openssh.com", "2", SFTP_CAN_STATVFS},
                {"lsetstat@openssh.com", "1", SFTP_CAN_LSETSTAT},
                {"copy-data", "1", SFTP_CAN_COPY_DATA},
                {"limits@openssh.com", "1", SFTP_CAN_LIMITS},
        };

        for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
                if (is_text(name, known[i].name) && is_text(data, known[i].data))
                        return known[i].feature;
        }
        return 0;
}

int wire_read_version(const unsigned char *packet, size_t size, uint32_t *ret_version,
                      unsigned *ret_features)
{
        struct wire_bytes body = {packet + 1, size - 1};
        struct wire_bytes name, data;
        unsigned features = 0;
        uint32_t version;

        if (packet[0] != WIRE_VERSION || !take32(&body, &version))
                return -EPROTO;
        while (body.size > 0) {
                if (!take_bytes(&body, &name) || !take_bytes(&body, &data))
                        return -EPROTO;
                features |= feature_of(name, data);
        }
        *ret_version = version;
        *ret_features = features;
        return 0;
}

int wire_read_statvfs(struct wire_bytes body, struct statvfs *ret)
{
        uint64_t n[11];

        for (size_t i = 0; i < 11; i++) {
                if (!take64(&body, &n[i]))
                        return -EPROTO;
        }
        if (body.size > 0)
                return -EPROTO;
        *ret = (struct statvfs){
                .f_bsize = n[0],
                .f_frsize = n[1],
                .f_blocks = n[2],
                .f_bfree = n[3],
                .f_bavail = n[4],
                .f_files = n[5],
                .f_ffree = n[6],
                .f_favail = n[7],
                .f_fsid = n[8],
                .f_flag = (n[9] & 1 ? ST_RDONLY : 0) | (n[9] & 2 ? ST_NOSUID : 0),
                .f_namemax = n[10],
        };
        return 0;
}

int wire_read_limits(struct wire_bytes body, struct wire_limits *ret)
{
        struct wire_limits l;

        if (!take64(&body, &l.packet) || !take64(&body, &l.read) || !take64(&body, &l.write) ||
            !take64(&body, &l.handles))
                return -EPROTO;
        *ret = l; /* later versions may add to it */
        return 0;
}

/* ---- what it means for an operation ---- */

int wire_errno(uint32_t status)
{
        /* From 9 on the numbers are those of later versions, which some say in this one, too. */
        static const int codes[] = {
                0,       -EIO,          -ENOENT,       -EACCES,     -EIO,
                -EINVAL, -EHOSTUNREACH, -EHOSTUNREACH, -EOPNOTSUPP, -EBADF,
                -ENOENT, -EEXIST,       -EROFS,        -ENXIO,      -ENOSPC,
                -EDQUOT, -EACCES,       -EBUSY,        -ENOTEMPTY,  -ENOTDIR,
                -EINVAL, -ELOOP,        -EPERM,        -EINVAL,     -EISDIR,
        };

        return status < sizeof(codes) / sizeof(*codes) ? codes[status] : -EIO;
}

/* What answers an operation that succeeded. */
static enum wire_kind answer_kind(unsigned type)
{
        switch (type) {
        case SFTP_OPEN:
        case SFTP_OPENDIR: return WIRE_HANDLE;
        case SFTP_READ: return WIRE_DATA;
        case SFTP_LSTAT:
        case SFTP_STAT:
        case SFTP_FSTAT: return WIRE_ATTRS;
        case SFTP_READDIR:
        case SFTP_REALPATH:
        case SFTP_READLINK: return WIRE_NAME;
        case SFTP_STATVFS:
        case WIRE_LIMITS: return WIRE_EXTENDED_REPLY;
        default: return WIRE_STATUS;
        }
}

bool wire_fits(unsigned type, enum wire_kind kind)
{
        return kind == WIRE_STATUS || kind == answer_kind(type);
}

static int take_status(struct sftp_op *op, uint32_t status)
{
        bool may_end = op->type == SFTP_READ || op->type == SFTP_READDIR;

        op->status = status;
        if (status == WIRE_OK && answer_kind(op->type) != WIRE_STATUS)
                return -EPROTO;
        op->error = status == WIRE_EOF && may_end ? 0 : wire_errno(status);
        return 0;
}

static int take_data(struct sftp_op *op, struct wire_bytes data)
{
        if (data.size > op->size)
                return -EPROTO;
        if (data.size == 0) {
                op->error = -EIO; /* neither data nor the end */
                return 0;
        }
        memcpy(op->buffer, data.data, data.size);
        op->got = data.size;
        return 0;
}

/* The one name of READLINK or REALPATH. */
static int take_one(struct sftp_op *op, const struct wire_answer *a)
{
        struct wire_bytes left = a->bytes, name = {0};
        struct stat st;
        char *to = op->buffer;

        if (a->count != 1 || !wire_next_name(&left, &name, &st))
                return -EPROTO;
        if (name.size == 0 || memchr(name.data, 0, name.size)) {
                op->error = -EIO;
        } else if (name.size >= op->size) {
                op->error = -ENAMETOOLONG;
        } else {
                memcpy(to, name.data, name.size);
                to[name.size] = '\0';
                op->got = name.size;
        }
        return 0;
}

int wire_take(struct sftp_op *op, const struct wire_answer *a)
{
        if (!wire_fits(op->type, a->kind))
                return -EPROTO;
        op->error = 0;
        switch ((unsigned)a->kind) {
        case WIRE_STATUS: return take_status(op, a->status);
        case WIRE_HANDLE:
                op->handle.size = (uint16_t)a->bytes.size;
                memcpy(op->handle.bytes, a->bytes.data, a->bytes.size);
                return 0;
        case WIRE_DATA: return take_data(op, a->bytes);
        case WIRE_ATTRS: op->st = a->st; return 0;
        case WIRE_NAME:
                if (op->type != SFTP_READDIR)
                        return take_one(op, a);
                op->names = sftp_names_new(a->bytes);
                op->error = op->names ? 0 : -ENOMEM;
                return 0;
        default: return wire_read_statvfs(a->bytes, &op->vfs);
        }
}
