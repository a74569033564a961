/* SPDX-License-Identifier: Apache-2.0 */
/* Streams written and read back, read by the tar of this machine, and hostile ones. */

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/unit/check.h"
#include "transport/archive/tar.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"

struct to_buf {
        struct tar_out out;
        struct buf buf;
};

static int add(struct tar_out *to, const void *data, size_t size)
{
        return buf_add(&container_of(to, struct to_buf, out)->buf, data, size);
}

/* A stream that is read in pieces. */
struct from_buf {
        struct tar_source source;
        const struct buf *buf;
        size_t at, piece;
};

static ssize_t next(struct tar_source *from, const void **ret)
{
        struct from_buf *f = container_of(from, struct from_buf, source);
        size_t left = f->buf->size - f->at, n = left < f->piece ? left : f->piece;

        *ret = f->buf->data + f->at;
        f->at += n;
        return (ssize_t)n;
}

#define SEEN_MAX 16

struct seen {
        struct tar_sink sink;
        size_t count;
        struct tar_entry entries[SEEN_MAX];
        char names[SEEN_MAX][64];
        char heads[SEEN_MAX][8];
        bool is_cut[SEEN_MAX];
        int answer;
};

static int on_file(struct tar_sink *to, const struct tar_entry *e, const void *data)
{
        struct seen *s = container_of(to, struct seen, sink);
        size_t n = e->size < 7 ? (size_t)e->size : 7;

        if (!CHECK(s->count < SEEN_MAX))
                return -ENOBUFS;
        s->entries[s->count] = *e;
        (void)snprintf(s->names[s->count], sizeof(s->names[0]), "%s", e->name);
        s->is_cut[s->count] = !data;
        if (data)
                memcpy(s->heads[s->count], data, n);
        s->count++;
        return s->answer;
}

static const struct tar_limits wide = {.file_bytes = 1 << 20, .bytes = 8 << 20, .count = 1000};

static int read_back(const struct buf *buf, size_t piece, const struct tar_limits *limits,
                     struct seen *ret)
{
        struct from_buf from = {.source.read = next, .buf = buf, .piece = piece};

        ret->sink.file = on_file;
        return tar_read(&from.source, limits, &ret->sink);
}

static void add_file(struct tar_writer *w, const char *name, mode_t mode, int64_t s, long ns,
                     const char *data)
{
        const struct tar_entry e = {.name = name,
                                    .mode = mode,
                                    .mtime = {.tv_sec = s, .tv_nsec = ns},
                                    .size = strlen(data)};

        CHECK_EQ(tar_add(w, &e), 0);
        CHECK_EQ(tar_write(w, data, strlen(data)), 0);
}

static void make_some(struct to_buf *to)
{
        const struct tar_entry dir = {.name = "dir", .mode = 0750, .is_dir = true};
        struct tar_writer *w = NULL;

        *to = (struct to_buf){.out.data = add, .buf = BUF_INIT(1 << 20)};
        CHECK_EQ(tar_writer_new(&to->out, &w), 0);
        CHECK_EQ(tar_add(w, &dir), 0);
        add_file(w, "dir/a", 0640, 1600000000, 123456789, "hello");
        add_file(w, "dir/b c\n\xff", 04755, 1600000001, 0, "");
        add_file(w, "last", 0400, -5, 250000000, "0123456789");
        CHECK_EQ(tar_finish(w), 0);
        tar_writer_free(w);
}

static void what_is_written_is_read_back(void)
{
        struct to_buf to;

        make_some(&to);
        for (size_t piece = 1; piece <= to.buf.size; piece = piece * 3 + 1) {
                struct seen s = {0};

                if (!CHECK_EQ(read_back(&to.buf, piece, &wide, &s), 0) || !CHECK_EQ(s.count, 4))
                        break;
                CHECK(s.entries[0].is_dir && s.entries[0].mode == 0750);
                CHECK_STR(s.names[0], "dir");
                CHECK_STR(s.names[1], "dir/a");
                CHECK_STR(s.heads[1], "hello");
                CHECK(s.entries[1].mode == 0640 && s.entries[1].mtime.tv_sec == 1600000000 &&
                      s.entries[1].mtime.tv_nsec == 123456789);
                CHECK_STR(s.names[2], "dir/b c\n\xff");
                CHECK(s.entries[2].mode == 04755 && s.entries[2].size == 0);
                CHECK(s.entries[3].mtime.tv_sec == -5 && s.entries[3].mtime.tv_nsec == 250000000 &&
                      s.entries[3].size == 10);
        }
        buf_done(&to.buf);
}

static void the_tar_of_this_machine_reads_it(void)
{
        struct to_buf to;
        FILE *f;

        make_some(&to);
        f = popen(
                "TZ=UTC tar -tvf - --full-time 2>&1 | grep -c -e '^-rw-r----- .* 12:26:40.123456789 "
                "dir/a$' -e '^-r-------- .* 10 1969-12-31 23:59:55.25 *last$' | grep -qx 2",
                "we");
        if (CHECK(f)) {
                CHECK_EQ(fwrite(to.buf.data, 1, to.buf.size, f), to.buf.size);
                CHECK_EQ(pclose(f), 0);
        }
        buf_done(&to.buf);
}

static void names_that_lead_elsewhere_are_not_written(void)
{
        static const char *const bad[] = {"", "/a", "..", "a/..", "a//b", "./a", "a/", "a/../b"};
        struct to_buf to = {.out.data = add, .buf = BUF_INIT(1 << 20)};
        struct tar_writer *w = NULL;

        CHECK_EQ(tar_writer_new(&to.out, &w), 0);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                CHECK_EQ(tar_add(w, &(struct tar_entry){.name = bad[i], .mode = 0600}), -EINVAL);
        CHECK_EQ(tar_finish(w), 0);
        tar_writer_free(w);
        buf_done(&to.buf);
}

static void a_file_has_exactly_its_size(void)
{
        struct to_buf to = {.out.data = add, .buf = BUF_INIT(1 << 20)};
        struct tar_writer *w = NULL;

        CHECK_EQ(tar_writer_new(&to.out, &w), 0);
        CHECK_EQ(tar_add(w, &(struct tar_entry){.name = "a", .size = 3}), 0);
        CHECK_EQ(tar_write(w, "abcd", 4), -EINVAL);
        CHECK_EQ(tar_write(w, "ab", 2), 0);
        CHECK_EQ(tar_add(w, &(struct tar_entry){.name = "b"}), -EINVAL);
        CHECK_EQ(tar_finish(w), -EINVAL);
        CHECK_EQ(tar_write(w, "c", 1), 0);
        CHECK_EQ(tar_finish(w), 0);
        tar_writer_free(w);
        buf_done(&to.buf);
}

static int refuse(struct tar_out *to, const void *data, size_t size)
{
        (void)to; /* takes nothing */
        (void)data;
        (void)size;
        return -EPIPE;
}

static void a_sink_that_refuses_ends_the_stream(void)
{
        static char block[256 * 1024];
        struct tar_out out = {.data = refuse};
        struct tar_writer *w = NULL;
        int r;

        CHECK_EQ(tar_writer_new(&out, &w), 0);
        r = tar_add(w, &(struct tar_entry){.name = "a", .size = sizeof(block)});
        if (r == 0)
                r = tar_write(w, block, sizeof(block));
        CHECK_EQ(r, -EPIPE);
        tar_writer_free(w);
}

/* ---- hostile streams, by hand ---- */

static void octal(char *to, size_t size, unsigned long value)
{
        char text[32];

        (void)snprintf(text, sizeof(text), "%0*lo", (int)size - 1, value);
        memcpy(to, text, size);
}

static void add_header(struct buf *to, const char *name, char type, unsigned long size,
                       const char *link)
{
        char h[512] = {0};
        unsigned sum = 0;

        (void)snprintf(h, 100, "%s", name);
        octal(h + 100, 8, 0644);
        octal(h + 108, 8, 0);
        octal(h + 116, 8, 0);
        octal(h + 124, 12, size);
        octal(h + 136, 12, 1600000000);
        memset(h + 148, ' ', 8);
        h[156] = type;
        (void)snprintf(h + 157, 100, "%s", link);
        memcpy(h + 257, "ustar\00000", 8);
        for (size_t i = 0; i < sizeof(h); i++)
                sum += (unsigned char)h[i];
        octal(h + 148, 7, sum);
        CHECK_EQ(buf_add(to, h, sizeof(h)), 0);
}

static void add_blocks(struct buf *to, size_t count)
{
        static const char zeros[512];

        for (size_t i = 0; i < count; i++)
                CHECK_EQ(buf_add(to, zeros, sizeof(zeros)), 0);
}

static void links_and_names_that_lead_elsewhere_are_passed_over(void)
{
        _cleanup_(buf_done) struct buf b = BUF_INIT(1 << 20);
        struct seen s = {0};

        add_header(&b, "../up", '0', 0, "");
        add_header(&b, "/etc/passwd", '0', 0, "");
        add_header(&b, "a/../../b", '0', 0, "");
        add_header(&b, "link", '2', 0, "/etc");
        add_header(&b, "hard", '1', 0, "/etc/passwd");
        add_header(&b, "fifo", '6', 0, "");
        add_header(&b, "device", '3', 0, "");
        add_header(&b, "good", '0', 3, "");
        add_blocks(&b, 1);
        add_header(&b, "dir/", '5', 0, "");
        add_blocks(&b, 2);
        CHECK_EQ(read_back(&b, 700, &wide, &s), 0);
        CHECK_EQ(s.count, 2);
        CHECK_STR(s.names[0], "good");
        CHECK_STR(s.names[1], "dir");
}

static void limits_hold(void)
{
        const struct tar_limits small = {.file_bytes = 100, .bytes = 150, .count = 3};
        struct to_buf to = {.out.data = add, .buf = BUF_INIT(1 << 20)};
        struct tar_writer *w = NULL;
        char text[102];
        struct seen s = {0}, t = {0}, u = {0};

        memset(text, 'x', sizeof(text));
        text[101] = '\0';
        CHECK_EQ(tar_writer_new(&to.out, &w), 0);
        add_file(w, "large", 0600, 1, 0, text);
        text[100] = '\0';
        add_file(w, "a", 0600, 1, 0, text);
        add_file(w, "b", 0600, 1, 0, text);
        CHECK_EQ(tar_finish(w), 0);
        tar_writer_free(w);
        CHECK_EQ(read_back(&to.buf, 512, &small, &s), -E2BIG);
        CHECK_EQ(s.count, 2);
        CHECK(s.is_cut[0] && !s.is_cut[1]);
        CHECK_EQ(read_back(&to.buf, 512, &(struct tar_limits){.bytes = 1, .count = 3}, &t), 0);
        CHECK_EQ(read_back(&to.buf, 512, &(struct tar_limits){.bytes = 1, .count = 2}, &u), -E2BIG);
        buf_done(&to.buf);
}

static void a_stream_that_is_cut_is_an_error(void)
{
        struct buf part;
        struct to_buf to;

        make_some(&to);
        for (size_t size = 512 + 17; size < to.buf.size - 1024 - 512; size += 211) {
                struct seen s = {0};

                part = to.buf;
                part.size = size;
                if (size % 512 != 0)
                        CHECK_EQ(read_back(&part, 512, &wide, &s), -EPROTO);
        }
        buf_done(&to.buf);
}

static void noise_is_an_error(void)
{
        _cleanup_(buf_done) struct buf b = BUF_INIT(1 << 20);
        struct seen s = {0}, t = {.answer = -EXFULL};

        for (unsigned i = 0; i < 4096; i++)
                CHECK_EQ(buf_add_char(&b, (char)(i * 167 + 13)), 0);
        CHECK_EQ(read_back(&b, 512, &wide, &s), -EPROTO);
        buf_clear(&b);
        add_header(&b, "huge", '0', 07777777777, "");
        CHECK_EQ(read_back(&b, 512, &wide, &s), -EPROTO); /* told, then cut */
        CHECK_EQ(s.count, 1);
        CHECK(s.is_cut[0]);
        CHECK_EQ(read_back(&b, 512, &wide, &t), -EXFULL);
}

int main(void)
{
        RUN(what_is_written_is_read_back);
        RUN(the_tar_of_this_machine_reads_it);
        RUN(names_that_lead_elsewhere_are_not_written);
        RUN(a_file_has_exactly_its_size);
        RUN(a_sink_that_refuses_ends_the_stream);
        RUN(links_and_names_that_lead_elsewhere_are_passed_over);
        RUN(limits_hold);
        RUN(a_stream_that_is_cut_is_an_error);
        RUN(noise_is_an_error);
        return check_result();
}
