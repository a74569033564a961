/* SPDX-License-Identifier: Apache-2.0 */
/* The client against servers that lie, are endless, or keep no order. */

#include "tests/unit/transport/sftp_server.h"

/* ---- broken protocols ---- */

static void answer_twice(struct server *v, const struct request *r)
{
        say_status(v, r->id, WIRE_OK);
        say_status(v, r->id, WIRE_OK);
}

static void answer_another(struct server *v, const struct request *r)
{
        say_status(v, r->id + 77, WIRE_OK);
}

static void answer_too_much(struct server *v, const struct request *r)
{
        size_t start = say(v, WIRE_DATA, r->id);

        say_bytes(v, "0123456789abcdef", 16);
        say_end(v, start);
}

static void answer_large(struct server *v, const struct request *r)
{
        (void)r;
        say32(v, WIRE_PACKET_MAX + 1);
}

static void answers_that_cant_be_end_the_connection(void)
{
        void (*const answers[])(struct server *, const struct request *) = {
                answer_twice, answer_another, answer_too_much, answer_large};

        for (int i = 0; i < 4; i++) {
                char buffer[8], sentence[256] = "";
                struct call c = in_ms(10000);
                struct sftp_op ops[2] = {
                        {.type = SFTP_READ, .handle.size = 1, .buffer = buffer, .size = 8},
                        {.type = SFTP_MKDIR, .path = "a"},
                };
                struct server v;
                struct sftp *s = start(&v, answers[i], true);

                CHECK_EQ(sftp_run(s, &c, ops, 2), -EPROTO);
                CHECK_EQ(sftp_error(s, sentence, sizeof(sentence)), -EPROTO);
                CHECK(sentence[0]);
                CHECK(ops[1].error == -EINPROGRESS || ops[1].error == -ECANCELED);
                stop(&v, s);
        }
}

/* ---- directories without end ---- */

static void say_names(struct server *v, uint32_t id, unsigned count, bool is_good)
{
        size_t start = say(v, WIRE_NAME, id);
        char name[32];

        say32(v, count);
        for (unsigned i = 0; i < count; i++) {
                (void)snprintf(name, sizeof(name), "%s%u", is_good ? "n" : "../", v->count++);
                say_bytes(v, name, strlen(name));
                say_bytes(v, "", 0);
                say_attrs_body(v, i % 10 ? S_IFREG | 0600 : S_IFDIR | 0700, 5);
        }
        say_end(v, start);
}

static void answer_endless(struct server *v, const struct request *r)
{
        if (r->kind == WIRE_OPENDIR)
                say_handle(v, r->id);
        else if (r->kind == WIRE_READDIR)
                say_names(v, r->id, 100, true);
        else
                say_status(v, r->id, WIRE_OK);
}

static void answer_useless(struct server *v, const struct request *r)
{
        if (r->kind == WIRE_OPENDIR)
                say_handle(v, r->id);
        else if (r->kind == WIRE_READDIR)
                say_names(v, r->id, 100, false);
        else
                say_status(v, r->id, WIRE_OK);
}

struct counts {
        size_t entries, listed;
};

static int on_entry(void *ctx, const char *path, const struct stat *st, const char *target)
{
        struct counts *n = ctx;

        (void)target;
        CHECK(!strstr(path, "..") && path[0] != '/');
        CHECK(st->st_mode & S_IFMT);
        n->entries++;
        return 0;
}

static int on_listed(void *ctx, const char *path)
{
        struct counts *n = ctx;

        (void)path;
        n->listed++;
        return 0;
}

static void endless_directories_are_cut(void)
{
        struct counts n = {0};
        struct sftp_list_sink to = {on_entry, on_listed, &n};
        struct sftp_listing what = {.root = "/r", .depth = 5000, .entries_max = 20000};
        struct call c = in_ms(100000);
        struct server v;
        struct sftp *s = start(&v, answer_endless, true);

        CHECK_EQ(sftp_list(s, &c, &what, &to), 0);
        CHECK(n.entries >= 20000 && n.entries < 21000);
        CHECK_EQ(n.listed, 0);
        stop(&v, s);

        n = (struct counts){0};
        what.entries_max = 0;
        s = start(&v, answer_useless, true);
        CHECK_EQ(sftp_list(s, &c, &what, &to), 0);
        CHECK_EQ(n.entries, 0);
        CHECK_EQ(n.listed, 0);
        stop(&v, s);
}

/* ---- files that lie ---- */

static void answer_growing(struct server *v, const struct request *r)
{
        if (r->kind == WIRE_LSTAT || r->kind == WIRE_FSTAT) {
                say_attrs(v, r->id, S_IFREG | 0644, 5 + v->count++);
        } else if (r->kind == WIRE_OPEN) {
                say_handle(v, r->id);
        } else if (r->kind == WIRE_READ) {
                size_t start = say(v, WIRE_DATA, r->id);

                say_bytes(v, "12345", 5);
                say_end(v, start);
        } else {
                say_status(v, r->id, WIRE_OK);
        }
}

static void answer_huge(struct server *v, const struct request *r)
{
        say_attrs(v, r->id, S_IFREG | 0644, UINT64_MAX);
}

static int on_error(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                    size_t size)
{
        (void)index;
        (void)st;
        CHECK(!data && size == 0);
        *(int *)ctx = error;
        return 0;
}

static void files_that_change_or_lie_are_refused(void)
{
        int error = 0;
        struct sftp_fetch_sink to = {.file = on_error, .ctx = &error};
        const char *path = "f";
        struct call c = in_ms(10000);
        struct server v;
        struct sftp *s = start(&v, answer_growing, true);

        CHECK_EQ(sftp_fetch(s, &c, &path, 1, 1 << 20, &to), 0);
        CHECK_EQ(error, -EAGAIN);
        CHECK_EQ(v.seen[WIRE_OPEN], 2);
        CHECK_EQ(v.seen[WIRE_CLOSE], 2);
        stop(&v, s);

        s = start(&v, answer_huge, true);
        CHECK_EQ(sftp_fetch(s, &c, &path, 1, SIZE_MAX / 2 - 1, &to), 0);
        CHECK_EQ(error, -EFBIG);
        stop(&v, s);
}

/* ---- a server that is honest, but answers in any order and in small portions ---- */

enum { FILE_SIZE = 3000000 };

static unsigned char file[FILE_SIZE];

static void answer_read(struct server *v, const struct request *r)
{
        const unsigned char *at = r->body + 4 + get32(r->body);
        uint64_t offset = (uint64_t)get32(at) << 32 | get32(at + 4);
        uint32_t size = get32(at + 8);
        size_t start;

        if (offset >= FILE_SIZE) {
                say_status(v, r->id, WIRE_EOF);
                return;
        }
        if (size > FILE_SIZE - offset)
                size = (uint32_t)(FILE_SIZE - offset);
        if (size > 1000 && v->count++ % 2)
                size = size / 3;
        start = say(v, WIRE_DATA, r->id);
        say_bytes(v, file + offset, size);
        say_end(v, start);
}

/* Of one READDIR 150 names, of the next the end. */
static void answer_readdir(struct server *v, const struct request *r)
{
        if (v->seen[WIRE_READDIR] % 2)
                say_names(v, r->id, 150, true);
        else
                say_status(v, r->id, WIRE_EOF);
}

static void answer_write(struct server *v, const struct request *r)
{
        const unsigned char *at = r->body + 4 + get32(r->body);
        uint64_t offset = (uint64_t)get32(at) << 32 | get32(at + 4);

        CHECK(offset + get32(at + 8) <= FILE_SIZE);
        memcpy(file + offset, at + 12, get32(at + 8));
        say_status(v, r->id, WIRE_OK);
}

static void answer_any(struct server *v, const struct request *r)
{
        switch ((unsigned)r->kind) {
        case WIRE_OPEN:
        case WIRE_OPENDIR: say_handle(v, r->id); break;
        case WIRE_READ: answer_read(v, r); break;
        case WIRE_WRITE: answer_write(v, r); break;
        case WIRE_READDIR: answer_readdir(v, r); break;
        case WIRE_LSTAT:
        case WIRE_FSTAT: say_attrs(v, r->id, S_IFREG | 0644, FILE_SIZE); break;
        default: say_status(v, r->id, WIRE_OK);
        }
}

/* The first of each two goes after the second. */
static void answer_unordered(struct server *v, const struct request *r)
{
        struct buf said = v->out;

        if (v->seen[r->kind] % 2 == 0) {
                answer_any(v, r);
                CHECK_EQ(buf_add(&v->out, v->kept.data, v->kept.size), 0);
                buf_done(&v->kept);
        } else {
                v->out = BUF_INIT(1 << 20);
                answer_any(v, r);
                v->kept = v->out;
                v->out = said;
        }
}

static int give_bytes(void *ctx, void *data, size_t size, uint64_t offset)
{
        (void)ctx;
        for (size_t i = 0; i < size; i++)
                ((unsigned char *)data)[i] = (unsigned char)((offset + i) * 13 >> 5);
        return 0;
}

static int on_file(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                   size_t size)
{
        (void)index;
        CHECK_EQ(error, 0);
        CHECK_EQ(st->st_size, FILE_SIZE);
        CHECK(size == FILE_SIZE && memcmp(data, file, size) == 0);
        ++*(unsigned *)ctx;
        return 0;
}

static void servers_without_order_serve_all_the_same(void)
{
        static unsigned char data[FILE_SIZE + 10];
        struct call c = in_ms(60000);
        struct server v;
        struct sftp *s = start(&v, answer_any, false);
        struct sftp_file f = {.s = s, .handle = {.size = 1}};
        struct sftp_source from = {give_bytes, NULL};
        const char *paths[] = {"a", "b", "c"};
        unsigned count = 0;
        struct sftp_fetch_sink files = {.file = on_file, .ctx = &count};
        struct counts n = {0};
        struct sftp_list_sink to = {on_entry, on_listed, &n};
        struct sftp_listing what = {.root = "", .depth = 1};
        struct stat st;

        CHECK_EQ(sftp_piece_max(s), 32768);
        CHECK_EQ(sftp_write(&f, 1, &c, &from, FILE_SIZE, 0), 0);
        (void)give_bytes(NULL, data, FILE_SIZE, 0);
        CHECK(memcmp(file, data, FILE_SIZE) == 0);
        memset(data, 0, sizeof(data));
        CHECK_EQ(sftp_read(&f, 1, &c, data, sizeof(data), 0, &st), FILE_SIZE);
        CHECK(memcmp(file, data, FILE_SIZE) == 0);
        CHECK_EQ(st.st_size, FILE_SIZE);
        CHECK_EQ(sftp_fetch(s, &c, paths, 3, FILE_SIZE, &files), 0);
        CHECK_EQ(count, 3);
        CHECK_EQ(sftp_list(s, &c, &what, &to), 0);
        CHECK_EQ(n.entries, 150);
        CHECK_EQ(n.listed, 1);
        stop(&v, s);
}

static void answers_may_overtake_each_other(void)
{
        static unsigned char data[FILE_SIZE];
        struct call c = in_ms(60000);
        struct server v;
        struct sftp *s = start(&v, answer_unordered, false);
        struct sftp_op ops[4] = {0};

        for (size_t i = 0; i < 4; i++)
                ops[i] = (struct sftp_op){.type = SFTP_READ,
                                          .handle.size = 1,
                                          .offset = i * 900,
                                          .size = 900,
                                          .buffer = data + i * 900};
        CHECK_EQ(sftp_run(s, &c, ops, 4), 0);
        for (int i = 0; i < 4; i++)
                CHECK_EQ(ops[i].got, 900);
        CHECK(memcmp(file, data, 3600) == 0);
        stop(&v, s);
}

int main(void)
{
        RUN(answers_that_cant_be_end_the_connection);
        RUN(endless_directories_are_cut);
        RUN(files_that_change_or_lie_are_refused);
        RUN(servers_without_order_serve_all_the_same);
        RUN(answers_may_overtake_each_other);
        return check_result();
}
