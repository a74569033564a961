/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file contract (providers/files.h) for conform.c. Paths and bytes are hexadecimal in JSON:
 * names hold any bytes. What is large goes by files of this machine: `to`, `file`.
 */

#include "tests/providers/conform_files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/provider.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/json.h"
#include "transport/base/list.h"
#include "transport/base/log.h"

#define HANDLES_MAX 64

static struct box_file *_Atomic handles[HANDLES_MAX];

/* ---- JSON ---- */

static uint64_t number(const struct json *j, const char *key)
{
        int64_t value = 0;

        (void)json_integer(json_get(j, key), &value);
        return (uint64_t)value;
}

static unsigned nibble(char c)
{
        return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* With a NUL behind; NULL: not there. */
static char *unhex(const char *text, size_t *ret_size)
{
        size_t size = text ? strlen(text) / 2 : 0;
        char *data = text ? malloc(size + 1) : NULL;

        for (size_t i = 0; data && i < size; i++)
                data[i] = (char)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
        if (data)
                data[size] = '\0';
        if (ret_size)
                *ret_size = size;
        return data;
}

static char *path_of(const struct json *j, const char *key)
{
        return unhex(json_string(json_get(j, key)), NULL);
}

static void add_hex(struct buf *to, const void *data, size_t size)
{
        static const char digits[] = "0123456789abcdef";
        const unsigned char *bytes = data;
        char *at = buf_reserve(to, 2 * size + 2);

        assert(at);
        *at++ = '"';
        for (size_t i = 0; i < size; i++) {
                *at++ = digits[bytes[i] >> 4];
                *at++ = digits[bytes[i] & 15];
        }
        *at = '"';
        to->size += 2 * size + 2;
}

static void add_stat(struct buf *to, const struct stat *st)
{
        (void)buf_addf(to,
                       "{\"mode\":%u,\"size\":%lld,\"mtime\":[%lld,%ld],\"ctime\":[%lld,%ld],"
                       "\"ino\":%llu,\"nlink\":%llu,\"blocks\":%lld}",
                       (unsigned)st->st_mode, (long long)st->st_size, (long long)st->st_mtim.tv_sec,
                       st->st_mtim.tv_nsec, (long long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec,
                       (unsigned long long)st->st_ino, (unsigned long long)st->st_nlink,
                       (long long)st->st_blocks);
}

static size_t count_of(const struct json *list)
{
        size_t count = 0;

        for (const struct json *each = json_first(list); each; each = json_next(each))
                count++;
        return count;
}

/* ---- listings ---- */

struct lister {
        struct file_list_sink sink;
        struct buf base, entries, listed;
        size_t stop_after; /* 0: never */
        size_t count;
};

static int on_entry(struct file_list_sink *sink, const char *path, const struct stat *st,
                    const char *target)
{
        struct lister *l = container_of(sink, struct lister, sink);

        if (!path[0]) { /* the directory itself: first, if at all */
                if (l->count > 0 || l->base.size > 0 || !S_ISDIR(st->st_mode))
                        return -EPROTO;
                add_stat(&l->base, st);
                return 0;
        }
        (void)buf_add_str(&l->entries, l->entries.size ? ",[" : "[");
        add_hex(&l->entries, path, strlen(path));
        (void)buf_add_char(&l->entries, ',');
        add_stat(&l->entries, st);
        (void)buf_add_char(&l->entries, ',');
        if (target)
                add_hex(&l->entries, target, strlen(target));
        else
                (void)buf_add_str(&l->entries, "null");
        (void)buf_add_char(&l->entries, ']');
        return ++l->count == l->stop_after ? -ECANCELED : 0;
}

static int on_listed(struct file_list_sink *sink, const char *path)
{
        struct lister *l = container_of(sink, struct lister, sink);

        if (l->listed.size)
                (void)buf_add_char(&l->listed, ',');
        add_hex(&l->listed, path, strlen(path));
        return 0;
}

static int do_list(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        _cleanup_(freep) char *path = path_of(j, "path");
        char *skip[16] = {0};
        struct file_listing what = {.path = path,
                                    .depth = (unsigned)number(j, "depth"),
                                    .entries_max = number(j, "max"),
                                    .skip = (const char *const *)skip};
        struct lister l = {.sink = {.entry = on_entry, .listed = on_listed},
                           .base = BUF_INIT(4096),
                           .entries = BUF_INIT((size_t)1 << 30),
                           .listed = BUF_INIT((size_t)1 << 30),
                           .stop_after = number(j, "stop_after")};
        size_t n = 0;
        int r;

        for (const struct json *each = json_first(json_get(j, "skip")); each;
             each = json_next(each))
                skip[n++] = unhex(json_string(each), NULL);
        r = box_list(b, c, &what, &l.sink);
        (void)buf_addf(answer, ",\"base\":%s,\"entries\":[%s],\"listed\":[%s]",
                       l.base.size ? buf_str(&l.base) : "null", buf_str(&l.entries),
                       buf_str(&l.listed));
        buf_done(&l.base);
        buf_done(&l.entries);
        buf_done(&l.listed);
        while (n > 0)
                free(skip[--n]);
        return r;
}

static int do_stat(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        _cleanup_(freep) char *path = path_of(j, "path");
        struct stat st;
        int r = box_stat(b, c, path, &st);

        if (r < 0)
                return r;
        (void)buf_add_str(answer, ",\"st\":");
        add_stat(answer, &st);
        return 0;
}

static int do_readlink(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        _cleanup_(freep) char *path = path_of(j, "path");
        char target[4096];
        int r = box_readlink(b, c, path, target, sizeof(target));

        if (r < 0)
                return r;
        (void)buf_add_str(answer, ",\"target\":");
        add_hex(answer, target, strlen(target));
        return 0;
}

static int do_statfs(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        struct statvfs vfs;
        int r = box_statfs(b, c, &vfs);

        (void)j; /* it has no arguments */
        if (r == 0)
                (void)buf_addf(answer, ",\"bsize\":%lu,\"frsize\":%lu,\"blocks\":%llu", vfs.f_bsize,
                               vfs.f_frsize, (unsigned long long)vfs.f_blocks);
        return r;
}

static int do_workdir(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        char path[4096];
        int r = box_workdir(b, c, path, sizeof(path));

        (void)j; /* it has no arguments */
        if (r < 0)
                return r;
        (void)buf_add_str(answer, ",\"workdir\":");
        add_hex(answer, path, strlen(path));
        return 0;
}

/* ---- whole files ---- */

struct fetcher {
        struct file_sink sink;
        int fd; /* each file at index * stride of this one; -1: the bytes are in the answer */
        uint64_t stride;
        struct buf results;
};

static int on_file(struct file_sink *sink, size_t index, int error, const struct stat *st,
                   const void *data, size_t size)
{
        struct fetcher *f = container_of(sink, struct fetcher, sink);
        const struct stat none = {0};

        (void)buf_addf(&f->results, "%s[%zu,\"%s\",", f->results.size ? "," : "", index,
                       error ? errno_name(error) : "");
        add_stat(&f->results, error == 0 || error == -EFBIG ? st : &none);
        (void)buf_add_char(&f->results, ',');
        if (error == 0 && f->fd >= 0)
                assert(file_pwrite_all(f->fd, data, size, index * f->stride) == 0);
        add_hex(&f->results, f->fd >= 0 || error ? "" : data, f->fd >= 0 || error ? 0 : size);
        (void)buf_add_char(&f->results, ']');
        return 0;
}

static int do_fetch(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        const struct json *list = json_get(j, "paths");
        const char *to = json_string(json_get(j, "to"));
        size_t n = 0, count = count_of(list);
        char **paths = calloc(count + 1, sizeof(*paths));
        struct fetcher f = {.sink.file = on_file,
                            .fd = to ? open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1,
                            .stride = number(j, "stride"),
                            .results = BUF_INIT((size_t)1 << 30)};
        int r;

        for (const struct json *each = json_first(list); each; each = json_next(each))
                paths[n++] = unhex(json_string(each), NULL);
        r = box_fetch(b, c, (const char *const *)paths, count, number(j, "size_max"), &f.sink);
        (void)buf_addf(answer, ",\"files\":[%s]", buf_str(&f.results));
        buf_done(&f.results);
        closep(&f.fd);
        for (size_t i = 0; i < count; i++)
                free(paths[i]);
        free(paths);
        return r;
}

/* ---- parts of files ---- */

static int do_open(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        _cleanup_(freep) char *path = path_of(j, "path");
        struct box_file *f, *none;
        struct stat st;
        int r = box_file_open(b, c, path, &f, &st);

        if (r < 0)
                return r;
        for (size_t i = 0; i < HANDLES_MAX; i++) {
                none = NULL;
                if (!atomic_compare_exchange_strong(&handles[i], &none, f))
                        continue;
                (void)buf_addf(answer, ",\"handle\":%zu,\"st\":", i);
                add_stat(answer, &st);
                return 0;
        }
        abort();
}

/* Into the answer; or, in pieces of `chunk`, into the file `to` of this machine. */
static int do_read(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        struct box_file *f = handles[number(j, "handle")];
        uint64_t size = number(j, "size"), offset = number(j, "offset"), done = 0;
        uint64_t chunk = number(j, "chunk") ? number(j, "chunk") : size;
        const char *to = json_string(json_get(j, "to"));
        _cleanup_(closep) int fd = to ? open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
        _cleanup_(freep) char *data = malloc(chunk + 1);
        struct stat st = {0};
        ssize_t n = 0;

        (void)b; /* the handle has it */
        while (done < size) {
                n = box_file_read(f, c, data, chunk < size - done ? chunk : size - done,
                                  offset + done, &st);
                if (n <= 0)
                        break;
                assert(fd < 0 || file_pwrite_all(fd, data, (size_t)n, offset + done) == 0);
                done += (uint64_t)n;
        }
        if (n < 0)
                return (int)n;
        (void)buf_addf(answer, ",\"got\":%" PRIu64 ",\"data\":", done);
        add_hex(answer, data, fd < 0 ? done : 0);
        (void)buf_add_str(answer, ",\"st\":");
        add_stat(answer, &st);
        return 0;
}

static int do_close(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        struct box_file *f = atomic_exchange(&handles[number(j, "handle")], NULL);

        (void)b; /* nobody fails here */
        (void)c;
        (void)answer;
        box_file_close(f);
        return 0;
}

/* ---- changes ---- */

struct bytes {
        struct file_source source;
        char *data; /* or */
        int fd;
        int error; /* what reading it answers */
};

static int read_bytes(struct file_source *from, void *data, size_t size, uint64_t offset)
{
        struct bytes *s = container_of(from, struct bytes, source);
        ssize_t n;

        assert(offset + size <= from->size);
        if (s->error)
                return s->error;
        if (s->data) {
                memcpy(data, s->data + offset, size);
                return 0;
        }
        n = file_pread_full(s->fd, data, size, offset);
        return n < 0 ? (int)n : (size_t)n == size ? 0 : -EIO;
}

static struct timespec time_of(const struct json *pair)
{
        const struct json *first = json_first(pair);
        int64_t s = 0, ns = 0;

        (void)json_integer(first, &s);
        if (first)
                (void)json_integer(json_next(first), &ns);
        return (struct timespec){.tv_sec = s, .tv_nsec = (long)ns};
}

static struct file_source *source_of(const struct json *j)
{
        const char *file = json_string(json_get(j, "file"));
        const char *data = json_string(json_get(j, "data"));
        struct bytes *s;
        size_t size = 0;

        if (!file && !data)
                return NULL;
        s = calloc(1, sizeof(*s));
        s->source.read = read_bytes;
        s->fd = -1;
        s->error = -(int)number(j, "source_error");
        if (data) {
                s->data = unhex(data, &size);
                s->source.size = size;
        } else {
                s->fd = open(file, O_RDONLY | O_CLOEXEC);
                assert(s->fd >= 0);
                s->source.size = (uint64_t)lseek(s->fd, 0, SEEK_END);
        }
        return &s->source;
}

static void free_source(struct file_source *from)
{
        struct bytes *s = from ? container_of(from, struct bytes, source) : NULL;

        if (!s)
                return;
        closep(&s->fd);
        free(s->data);
        free(s);
}

static const struct file_extent *extents_of(const struct json *list, size_t *ret_count)
{
        struct file_extent *extents = calloc(count_of(list) + 1, sizeof(*extents));
        size_t n = 0;

        for (const struct json *each = json_first(list); each; each = json_next(each)) {
                const struct json *first = json_first(each);
                int64_t offset = 0, size = 0;

                (void)json_integer(first, &offset);
                (void)json_integer(json_next(first), &size);
                extents[n++] = (struct file_extent){(uint64_t)offset, (uint64_t)size};
        }
        *ret_count = n;
        return extents;
}

static void change_of(const struct json *j, struct change *ret)
{
        static const char *const kinds[] = {"store",  "write", "mkdir",  "symlink", "link",
                                            "unlink", "rmdir", "rename", "set"};
        const char *kind = json_string(json_get(j, "kind"));

        *ret = (struct change){
                .path = path_of(j, "path"),
                .to = path_of(j, "to"),
                .temp = json_get(j, "temp") ? path_of(j, "temp") : NULL,
                .flags = (unsigned)number(j, "flags"),
                .what = (unsigned)number(j, "what"),
                .mode = (mode_t)number(j, "mode"),
                .size = number(j, "size"),
                .atime = time_of(json_get(j, "atime")),
                .mtime = time_of(json_get(j, "mtime")),
                .from = source_of(j),
        };
        for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
                if (strcmp(kinds[i], kind) == 0)
                        ret->kind = (enum change_kind)i;
        }
        ret->extents = extents_of(json_get(j, "extents"), &ret->extent_count);
}

static void free_change(struct change *x)
{
        free((void *)(uintptr_t)x->path);
        free((void *)(uintptr_t)x->to);
        free((void *)(uintptr_t)x->temp);
        free((void *)(uintptr_t)x->extents);
        free_source(x->from);
}

static int do_apply(struct box *b, struct call *c, const struct json *j, struct buf *answer)
{
        const struct json *list = json_get(j, "changes");
        size_t n = 0, count = count_of(list);
        struct change *changes = calloc(count + 1, sizeof(*changes));
        int r;

        for (const struct json *each = json_first(list); each; each = json_next(each))
                change_of(each, &changes[n++]);
        r = box_apply(b, c, changes, count);
        (void)buf_add_str(answer, ",\"changes\":[");
        for (size_t i = 0; i < count; i++) {
                (void)buf_addf(answer, "%s[\"%s\",", i ? "," : "",
                               changes[i].error ? errno_name(changes[i].error) : "");
                if (changes[i].has_st)
                        add_stat(answer, &changes[i].st);
                else
                        (void)buf_add_str(answer, "null");
                (void)buf_add_char(answer, ']');
                free_change(&changes[i]);
        }
        (void)buf_add_char(answer, ']');
        free(changes);
        return r;
}

int conform_files(const char *op, struct box *b, struct call *c, const struct json *j,
                  struct buf *answer)
{
        static const struct {
                const char *name;
                int (*work)(struct box *b, struct call *c, const struct json *j,
                            struct buf *answer);
        } operations[] = {
                {"f_list", do_list},       {"f_stat", do_stat},   {"f_readlink", do_readlink},
                {"f_statfs", do_statfs},   {"f_fetch", do_fetch}, {"f_open", do_open},
                {"f_workdir", do_workdir}, {"f_read", do_read},   {"f_close", do_close},
                {"f_apply", do_apply},
        };

        for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
                if (strcmp(operations[i].name, op) == 0)
                        return operations[i].work(b, c, j, answer);
        }
        return -ENOSYS;
}
