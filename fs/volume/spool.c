/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of files, in memory or in sparse files. */

#include "fs/volume/spool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

#define LOOK_NS (100 * NS_PER_MS)
#define RESERVE_MAX ((uint64_t)64 * 1024 * 1024)
#define AROUND_MAX ((uint64_t)48 * 1024 * 1024)
#define AROUND_MIN ((uint64_t)1024 * 1024) /* all that is asked for at once */

void spool_init(struct spool *s, int dir, uint64_t disk_max)
{
        s->dir = dir;
        s->disk_max = disk_max;
        atomic_init(&s->next_id, 1);
        atomic_init(&s->memory, 0);
        atomic_init(&s->disk, 0);
        atomic_init(&s->free, UINT64_MAX);
        atomic_init(&s->reserve, 0);
        atomic_init(&s->looked_ns, 0);
        atomic_init(&s->looked_disk, 0);
}

/* ---- the disk ---- */

/* It is seen again after a while, and when much of what was free may be used. */
static bool is_look_due(struct spool *s, uint64_t now_ns)
{
        uint64_t disk = atomic_load(&s->disk), before = atomic_load(&s->looked_disk);
        uint64_t moved = disk > before ? disk - before : before - disk;

        return now_ns > atomic_load(&s->looked_ns) + LOOK_NS || moved > atomic_load(&s->free) / 16;
}

/* Where it doesn't tell, all is free. Two at once do no harm. */
static void look(struct spool *s)
{
        uint64_t now_ns = clock_mono_ns(), reserve;
        struct statvfs st;

        if (!is_look_due(s, now_ns))
                return;
        atomic_store(&s->looked_ns, now_ns);
        atomic_store(&s->looked_disk, atomic_load(&s->disk));
        if (fstatvfs(s->dir, &st) < 0 || st.f_blocks == 0)
                return;
        reserve = (uint64_t)st.f_blocks * st.f_frsize / 16;
        atomic_store(&s->free, (uint64_t)st.f_bavail * st.f_frsize);
        atomic_store(&s->reserve, reserve < RESERVE_MAX ? reserve : RESERVE_MAX);
}

uint64_t spool_limit(struct spool *s)
{
        uint64_t share;

        look(s);
        share = atomic_load(&s->disk) / 2 + atomic_load(&s->free) / 2;
        return share < s->disk_max ? share : s->disk_max;
}

uint64_t spool_around(struct spool *s)
{
        uint64_t around = spool_limit(s) / 16;

        return around > AROUND_MAX ? AROUND_MAX : around < AROUND_MIN ? AROUND_MIN : around;
}

bool spool_is_short(struct spool *s)
{
        look(s);
        return atomic_load(&s->free) < atomic_load(&s->reserve);
}

bool spool_is_full(int r)
{
        return r == -ENOSPC || r == -EDQUOT;
}

/* ---- names ---- */

void spool_name(char kind, uint64_t id, char ret[SPOOL_NAME_SIZE])
{
        (void)snprintf(ret, SPOOL_NAME_SIZE, "%c-%016" PRIx64, kind, id); /* 18 bytes */
}

uint64_t spool_id(char kind, const char *name)
{
        char again[SPOOL_NAME_SIZE];
        uint64_t id;

        if (name[0] != kind || name[1] != '-' || strlen(name) != 18)
                return 0;
        id = strtoull(name + 2, NULL, 16);
        spool_name(kind, id, again);
        return strcmp(again, name) == 0 ? id : 0;
}

/* ---- blobs ---- */

struct blob *blob_new(void)
{
        struct blob *b = malloc(sizeof(*b));

        if (b)
                *b = (struct blob){.refs = 1, .fd = -1};
        return b;
}

struct blob *blob_ref(struct blob *b)
{
        b->refs++;
        return b;
}

static void set_room(struct spool *s, struct blob *b, size_t room)
{
        atomic_fetch_add(&s->memory, room - b->room);
        b->room = room;
}

void blob_count(struct spool *s, struct blob *b, uint64_t bytes)
{
        if (b->id == 0)
                bytes = 0;
        atomic_fetch_add(&s->disk, bytes - b->counted);
        b->counted = bytes;
}

void blob_unref(struct spool *s, struct blob *b)
{
        char name[SPOOL_NAME_SIZE];

        if (!b || --b->refs > 0)
                return;
        closep(&b->fd);
        if (b->id != 0) {
                spool_name('b', b->id, name);
                (void)unlinkat(s->dir, name, 0); /* else the next start removes it */
        }
        blob_count(s, b, 0);
        free(b->data);
        set_room(s, b, 0);
        free(b);
}

void blob_adopt(struct spool *s, struct blob *b, uint64_t id)
{
        uint64_t next = atomic_load(&s->next_id);

        b->id = id;
        while (next <= id && !atomic_compare_exchange_weak(&s->next_id, &next, id + 1))
                ;
}

void blob_keep(struct spool *s, struct blob *b)
{
        blob_count(s, b, 0);
        b->id = 0;
        closep(&b->fd);
        b->fd = -1;
}

void blob_hold(struct blob *b)
{
        b->holds++;
}

void blob_release(struct blob *b)
{
        assert(b->holds > 0);
        if (--b->holds > 0)
                return;
        closep(&b->fd);
        b->fd = -1;
}

void blob_pass_holds(struct blob *from, struct blob *to)
{
        assert(to->holds == 0);
        to->holds = from->holds;
        from->holds = 0;
        closep(&from->fd);
        from->fd = -1;
}

/* ---- files ---- */

static int open_file(struct spool *s, struct blob *b, int flags)
{
        char name[SPOOL_NAME_SIZE];

        if (b->fd >= 0)
                return 0;
        spool_name('b', b->id, name);
        b->fd = openat(s->dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
        return b->fd < 0 ? -errno : 0;
}

/* Holds it for one operation. */
static int enter(struct spool *s, struct blob *b)
{
        int r;

        blob_hold(b);
        r = open_file(s, b, 0);
        if (r < 0)
                blob_release(b);
        return r;
}

int blob_to_file(struct spool *s, struct blob *b)
{
        int r;

        if (b->id != 0)
                return 0;
        blob_hold(b);
        b->id = atomic_fetch_add(&s->next_id, 1);
        r = open_file(s, b, O_CREAT | O_EXCL);
        if (r == 0)
                r = file_pwrite_all(b->fd, b->data, b->room, 0);
        if (r == 0) {
                free(b->data);
                b->data = NULL;
                set_room(s, b, 0);
        } else {
                char name[SPOOL_NAME_SIZE];

                spool_name('b', b->id, name);
                closep(&b->fd);
                b->fd = -1;
                (void)unlinkat(s->dir, name, 0); /* else the next start removes it */
                b->id = 0;
        }
        blob_release(b);
        return r;
}

/* ---- memory ---- */

static int grow(struct spool *s, struct blob *b, size_t size)
{
        char *data;

        if (size <= b->room)
                return 0;
        data = realloc(b->data, size);
        if (!data)
                return -ENOMEM;
        memset(data + b->room, 0, size - b->room);
        b->data = data;
        set_room(s, b, size);
        return 0;
}

int blob_write(struct spool *s, struct blob *b, const void *data, size_t size, uint64_t offset)
{
        int r;

        if (b->id == 0 && offset + size > SPOOL_SMALL) {
                r = blob_to_file(s, b);
                if (r < 0)
                        return r;
        }
        if (b->id == 0) {
                r = grow(s, b, (size_t)offset + size);
                if (r == 0 && size > 0)
                        memcpy(b->data + offset, data, size);
                return r;
        }
        r = enter(s, b);
        if (r < 0)
                return r;
        r = file_pwrite_all(b->fd, data, size, offset);
        blob_release(b);
        return r;
}

int blob_read(struct spool *s, struct blob *b, void *data, size_t size, uint64_t offset)
{
        size_t n = 0;
        ssize_t got;
        int r;

        if (b->id == 0) {
                if (offset < b->room) {
                        n = b->room - (size_t)offset < size ? b->room - (size_t)offset : size;
                        memcpy(data, b->data + offset, n);
                }
                memset((char *)data + n, 0, size - n);
                return 0;
        }
        r = enter(s, b);
        if (r < 0)
                return r;
        got = file_pread_full(b->fd, data, size, offset);
        blob_release(b);
        if (got < 0)
                return (int)got;
        memset((char *)data + got, 0, size - (size_t)got);
        return 0;
}

int blob_resize(struct spool *s, struct blob *b, uint64_t size)
{
        int r;

        if (b->id == 0) {
                if (size < b->room)
                        memset(b->data + size, 0, b->room - (size_t)size);
                return 0;
        }
        r = enter(s, b);
        if (r < 0)
                return r;
        r = ftruncate(b->fd, (off_t)size) < 0 ? -errno : 0;
        blob_release(b);
        return r;
}

/* Where the file system can't punch holes. */
static int write_zeros(int fd, uint64_t start, uint64_t end)
{
        static const char zeros[65536];
        int r = 0;

        while (r == 0 && start < end) {
                size_t n = end - start < sizeof(zeros) ? (size_t)(end - start) : sizeof(zeros);

                r = file_pwrite_all(fd, zeros, n, start);
                start += n;
        }
        return r;
}

int blob_zero(struct spool *s, struct blob *b, uint64_t start, uint64_t end)
{
        struct stat st;
        int r;

        if (b->id == 0) {
                if (end > b->room)
                        end = b->room;
                if (start < end)
                        memset(b->data + start, 0, (size_t)(end - start));
                return 0;
        }
        r = enter(s, b);
        if (r < 0)
                return r;
        if (fstat(b->fd, &st) < 0)
                r = -errno;
        else if (end > (uint64_t)st.st_size)
                end = (uint64_t)st.st_size; /* nothing is behind it */
        if (r == 0 && start < end &&
            fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                      (off_t)(end - start)) < 0)
                r = errno == EOPNOTSUPP ? write_zeros(b->fd, start, end) : -errno;
        blob_release(b);
        return r;
}
