/* SPDX-License-Identifier: Apache-2.0 */
/* Capped, append-only output on local disk. See the header for its shape. */

#include "fs/sandbox/output.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/base/file.h"
#include "transport/base/log.h"

#define BOTH 2 /* index of the file with both streams */

static const char *const names[OUTPUT_FILES] = {"stdout", "stderr", "output"};

const char *output_file_name(unsigned file)
{
        assert(file < OUTPUT_FILES);
        return names[file];
}

void output_init(struct output *o, int state_dir, const char *path, uint64_t cap)
{
        *o = (struct output){.state_dir = state_dir};
        assert(strlen(path) < sizeof(o->path));
        memcpy(o->path, path, strlen(path) + 1);
        o->limit = cap > OUTPUT_TAIL ? cap - OUTPUT_TAIL : 0;
        for (unsigned i = 0; i < OUTPUT_FILES; i++)
                o->files[i].fd = -1;
}

void output_done(struct output *o)
{
        output_close(o);
        for (unsigned i = 0; i < OUTPUT_FILES; i++)
                free(o->files[i].tail);
}

void output_close(struct output *o)
{
        for (unsigned i = 0; i < OUTPUT_FILES; i++) {
                if (o->files[i].fd >= 0)
                        (void)close(o->files[i].fd); /* written with errors checked */
                o->files[i].fd = -1;
        }
}

static int open_file(struct output *o, unsigned i, int flags)
{
        char path[sizeof(o->path) + 16];
        int fd;

        (void)snprintf(path, sizeof(path), "%s/%s", o->path, names[i]);
        fd = openat(o->state_dir, path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
        return fd < 0 ? -errno : fd;
}

void output_sync(struct output *o)
{
        for (unsigned i = 0; i < OUTPUT_FILES; i++) {
                int fd = output_size(o, i) > 0 ? open_file(o, i, O_RDONLY) : -1;

                if (fd < 0)
                        continue;
                if (fdatasync(fd) < 0)
                        log_warning("%s/%s: sync: %s, ignoring", o->path, names[i],
                                    errno_name(errno));
                (void)close(fd);
        }
}

static void show(struct output_file *f)
{
        atomic_store_explicit(&f->shown, f->size, memory_order_release);
}

uint64_t output_size(const struct output *o, unsigned file)
{
        assert(file < OUTPUT_FILES);
        return atomic_load_explicit(&o->files[file].shown, memory_order_acquire);
}

/* ---- what a former run left ---- */

static void load_size(struct output *o, unsigned i)
{
        struct output_file *f = &o->files[i];
        struct stat st;
        int fd = open_file(o, i, O_RDONLY);

        if (fd < 0)
                return; /* nothing was ever printed */
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
                f->size = (uint64_t)st.st_size;
        (void)close(fd);
}

void output_load(struct output *o, const uint64_t dropped[2])
{
        for (unsigned i = 0; i < OUTPUT_FILES; i++) {
                load_size(o, i);
                show(&o->files[i]);
        }
        for (unsigned i = 0; i < 2; i++)
                atomic_store(&o->dropped[i], dropped[i]);
}

/*
 * Bytes in `output` beyond those of both streams were written just before a crash, and never shown.
 */
static void cut_output(struct output *o)
{
        uint64_t sum = o->files[0].size + o->files[1].size;
        struct output_file *f = &o->files[BOTH];
        int fd;

        if (f->size <= sum)
                return;
        fd = open_file(o, BOTH, O_WRONLY);
        if (fd < 0)
                return;
        if (ftruncate(fd, (off_t)sum) == 0)
                f->size = sum;
        (void)close(fd);
}

void output_resume(struct output *o, const int64_t skew[2])
{
        for (unsigned i = 0; i < OUTPUT_FILES; i++)
                load_size(o, i);
        cut_output(o);
        for (unsigned i = 0; i < OUTPUT_FILES; i++) {
                struct output_file *f = &o->files[i];

                f->total = f->size;
                f->is_full = f->size >= o->limit;
                show(f);
        }
        for (unsigned i = 0; i < 2; i++) {
                o->skew[i] = skew[i];
                o->position[i] =
                        (o->files[i].is_full ? o->limit : o->files[i].size) + (uint64_t)skew[i];
                if (skew[i] > 0)
                        atomic_store(&o->dropped[i], (uint64_t)skew[i]);
        }
}

/* ---- writing ---- */

/* Keep the last OUTPUT_TAIL bytes of what the file does not take. */
static void keep_tail(struct output_file *f, const char *data, size_t size)
{
        if (!f->tail)
                f->tail = malloc(OUTPUT_TAIL); /* without memory there is no tail: all is dropped */
        if (!f->tail)
                return;
        if (size > OUTPUT_TAIL) {
                data += size - OUTPUT_TAIL;
                size = OUTPUT_TAIL;
        }
        while (size > 0) {
                size_t n = OUTPUT_TAIL - f->tail_at;

                if (n > size)
                        n = size;
                memcpy(f->tail + f->tail_at, data, n);
                f->tail_at = (f->tail_at + n) % OUTPUT_TAIL;
                f->tail_size = f->tail_size + n > OUTPUT_TAIL ? OUTPUT_TAIL : f->tail_size + n;
                data += n;
                size -= n;
        }
}

static int write_file(struct output *o, unsigned i, const char *data, size_t size)
{
        struct output_file *f = &o->files[i];
        int r;

        if (size == 0)
                return 0;
        if (f->fd < 0) {
                r = open_file(o, i, O_RDWR | O_CREAT);
                if (r < 0)
                        return r;
                f->fd = r;
        }
        r = file_pwrite_all(f->fd, data, size, f->size);
        if (r < 0)
                return r;
        f->size += size;
        return 0;
}

/* How many of `size` bytes still go into the file. */
static size_t room(const struct output *o, const struct output_file *f, size_t size)
{
        if (f->is_full || f->size >= o->limit)
                return 0;
        return o->limit - f->size < size ? (size_t)(o->limit - f->size) : size;
}

static void rest(struct output_file *f, const char *data, size_t size, size_t written)
{
        f->total += size;
        if (written == size)
                return;
        f->is_full = true;
        keep_tail(f, data + written, size - written);
}

/* Both files take the bytes, or neither does and all stop. */
static void write_both(struct output *o, unsigned stream, const char *data, size_t size)
{
        struct output_file *one = &o->files[stream], *both = &o->files[BOTH];
        uint64_t before = both->size;
        size_t n_both = room(o, both, size), n_one = room(o, one, size);
        int r;

        r = write_file(o, BOTH, data, n_both);
        if (r == 0)
                r = write_file(o, stream, data, n_one);
        if (r < 0) {
                log_warning("%s/%s: %s: later output is dropped", o->path, names[stream],
                            errno_name(r));
                if (both->size > before && ftruncate(both->fd, (off_t)before) == 0)
                        both->size = before;
                n_both = both->size > before ? n_both : 0;
                n_one = 0;
                if (one->fd >= 0)
                        (void)!ftruncate(
                                one->fd,
                                (off_t)one->size); /* what a short write left is shown to nobody */
                for (unsigned i = 0; i < OUTPUT_FILES; i++)
                        o->files[i].is_full = true;
        }
        rest(both, data, size, n_both);
        rest(one, data, size, n_one);
        show(both);
        show(one);
}

static size_t marker(char *text, size_t size, uint64_t bytes)
{
        int n = snprintf(text, size, "\n[sbxfs: %" PRIu64 " bytes dropped]\n", bytes);

        assert(n > 0 && (size_t)n < size);
        return (size_t)n;
}

static void count_dropped(struct output *o, unsigned stream)
{
        const struct output_file *f = &o->files[stream];
        uint64_t beyond = f->total - f->size - f->tail_size;

        atomic_store(&o->dropped[stream],
                     beyond + (o->skew[stream] > 0 ? (uint64_t)o->skew[stream] : 0));
}

int output_add(struct output *o, enum exec_stream stream, uint64_t offset, const void *data,
               size_t size)
{
        const char *at = data;
        int gap = 0;

        if (offset > o->position[stream]) {
                uint64_t missing = offset - o->position[stream];

                o->skew[stream] += (int64_t)missing;
                o->position[stream] = offset;
                gap = 1;
        } else if (o->position[stream] - offset >= size) {
                return 0; /* known already */
        } else {
                size_t known = (size_t)(o->position[stream] - offset);

                at += known;
                size -= known;
        }
        o->position[stream] += size;
        if (size > 0)
                write_both(o, stream, at, size);
        count_dropped(o, stream);
        return gap;
}

/* ---- the end ---- */

static int append_tail(struct output *o, unsigned i)
{
        struct output_file *f = &o->files[i];
        uint64_t missing = f->total - f->size - f->tail_size;
        size_t first =
                f->tail_size < OUTPUT_TAIL ? 0 : f->tail_at; /* the oldest byte of the ring */
        char text[64];
        int r = 0;

        if (missing > 0)
                r = write_file(o, i, text, marker(text, sizeof(text), missing));
        if (r == 0)
                r = write_file(o, i, f->tail ? f->tail + first : NULL, f->tail_size - first);
        if (r == 0)
                r = write_file(o, i, f->tail, first);
        return r;
}

void output_finish(struct output *o, const uint64_t dropped[2])
{
        for (unsigned i = 0; i < OUTPUT_FILES; i++) {
                struct output_file *f = &o->files[i];

                if (i < 2) {
                        count_dropped(o, i);
                        atomic_fetch_add(&o->dropped[i], dropped[i]);
                }
                if (f->total > f->size || f->tail_size > 0) {
                        uint64_t size = f->size;
                        size_t tail = f->tail_size;
                        int r = append_tail(o, i);

                        if (r < 0) {
                                log_warning("%s/%s: %s: the end of the output is dropped", o->path,
                                            names[i], errno_name(r));
                                if (f->fd >= 0 && ftruncate(f->fd, (off_t)size) == 0)
                                        f->size = size;
                                if (i < 2)
                                        atomic_fetch_add(&o->dropped[i], tail);
                        }
                }
                free(f->tail);
                f->tail = NULL;
                f->tail_size = 0;
                show(f);
        }
}
