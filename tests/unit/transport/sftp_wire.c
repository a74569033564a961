/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of SFTP: what we write, and what is made of anything that comes. */

#include "transport/sftp/wire.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/sftp/names.h"

/* ---- making packets ---- */

struct bytes {
        unsigned char data[4096];
        size_t size;
};

static void add(struct bytes *b, const void *data, size_t size)
{
        memcpy(b->data + b->size, data, size);
        b->size += size;
}

static void add32(struct bytes *b, uint32_t value)
{
        unsigned char bytes[] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                                 (unsigned char)(value >> 8), (unsigned char)value};

        add(b, bytes, 4);
}

static void add64(struct bytes *b, uint64_t value)
{
        add32(b, (uint32_t)(value >> 32));
        add32(b, (uint32_t)value);
}

static void add_text(struct bytes *b, const char *text, size_t size)
{
        add32(b, (uint32_t)size);
        add(b, text, size);
}

static struct bytes answer(enum wire_kind kind, uint32_t id)
{
        struct bytes b = {0};

        b.data[b.size++] = (unsigned char)kind;
        add32(&b, id);
        return b;
}

static void add_attrs(struct bytes *b, uint32_t mode, uint64_t size)
{
        add32(b, 0xf);
        add64(b, size);
        add32(b, 1000);
        add32(b, 1001);
        add32(b, mode);
        add32(b, 7);
        add32(b, 4000000000u);
}

static void add_name(struct bytes *b, const char *name, size_t size, uint32_t mode)
{
        add_text(b, name, size);
        add_text(b, "drwxr-xr-x    1 long", 20);
        add_attrs(b, mode, 5);
}

static int read_one(const struct bytes *b, struct wire_answer *ret)
{
        unsigned char *exact = malloc(b->size ? b->size : 1); /* so that a read beyond is seen */
        int r;

        memcpy(exact, b->data, b->size);
        r = wire_read_answer(exact, b->size, ret);
        free(exact);
        return r;
}

/* ---- requests ---- */

static bool is_request(const struct sftp_op *op, const char *bytes, size_t size)
{
        struct buf b = BUF_INIT(1 << 20);
        bool is_same = wire_add_op(&b, 0x01020304, op) == 0 && b.size == size &&
                       memcmp(b.data, bytes, size) == 0;

        buf_done(&b);
        return is_same;
}

#define IS_REQUEST(op, text) CHECK(is_request(op, text, sizeof(text) - 1))

static void requests_are_as_the_draft_has_them(void)
{
        struct sftp_op open = {.type = SFTP_OPEN,
                               .path = "a",
                               .flags = SFTP_FOR_WRITE | SFTP_CREATE | SFTP_EXCLUSIVE,
                               .set = {.what = SFTP_SET_MODE, .mode = 0640}};
        struct sftp_op read = {.type = SFTP_READ,
                               .handle = {.size = 1, .bytes = "h"},
                               .offset = UINT64_C(0x100000002),
                               .size = 3};
        struct sftp_op stat = {.type = SFTP_LSTAT, .path = ""};

        IS_REQUEST(&open, "\0\0\0\x16\x03\1\2\3\4\0\0\0\1a\0\0\0\x2a\0\0\0\4\0\0\1\xa0");
        IS_REQUEST(&read, "\0\0\0\x16\5\1\2\3\4\0\0\0\1h\0\0\0\1\0\0\0\2\0\0\0\3");
        IS_REQUEST(&stat, "\0\0\0\x0a\x07\1\2\3\4\0\0\0\1.");
}

static void length_of_a_write_counts_the_data_that_follow(void)
{
        struct sftp_op op = {
                .type = SFTP_WRITE, .handle = {.size = 1, .bytes = "h"}, .data = "abc", .size = 3};

        IS_REQUEST(&op, "\0\0\0\x19\x06\1\2\3\4\0\0\0\1h\0\0\0\0\0\0\0\0\0\0\0\3");
}

static void symlinks_text_goes_first(void)
{
        struct sftp_op op = {.type = SFTP_SYMLINK, .path = "new", .to = ""};

        IS_REQUEST(&op, "\0\0\0\x10\x14\1\2\3\4\0\0\0\0\0\0\0\3new");
}

static void times_beyond_the_wire_are_the_nearest(void)
{
        struct sftp_op op = {.type = SFTP_SETSTAT,
                             .path = "a",
                             .set = {.what = SFTP_SET_TIMES,
                                     .atime.tv_sec = -1,
                                     .mtime.tv_sec = INT64_C(1) << 40}};

        IS_REQUEST(&op, "\0\0\0\x16\x09\1\2\3\4\0\0\0\1a\0\0\0\x08\0\0\0\0\xff\xff\xff\xff");
}

static void requests_that_cant_be_are_refused(void)
{
        static char longest[WIRE_PATH_MAX + 2];
        struct buf b = BUF_INIT(1 << 20);
        struct sftp_op op = {.type = SFTP_LSTAT, .path = longest};

        memset(longest, 'a', WIRE_PATH_MAX);
        CHECK_EQ(wire_add_op(&b, 1, &op), 0);
        buf_clear(&b);
        longest[WIRE_PATH_MAX] = 'a';
        CHECK_EQ(wire_add_op(&b, 1, &op), -ENAMETOOLONG);
        op = (struct sftp_op){.type = SFTP_RENAME, .path = "a"};
        CHECK_EQ(wire_add_op(&b, 1, &op), -EINVAL);
        op = (struct sftp_op){.type = SFTP_READ, .size = WIRE_PIECE_MAX + 1};
        CHECK_EQ(wire_add_op(&b, 1, &op), -EINVAL);
        op = (struct sftp_op){.type = 0};
        CHECK_EQ(wire_add_op(&b, 1, &op), -EINVAL);
        op = (struct sftp_op){.type = 99};
        CHECK_EQ(wire_add_op(&b, 1, &op), -EINVAL);
        op = (struct sftp_op){.type = SFTP_FSTAT, .handle.size = SFTP_HANDLE_MAX + 1};
        CHECK_EQ(wire_add_op(&b, 1, &op), -EINVAL);
        CHECK_EQ(b.size, 0);
        buf_done(&b);
}

/* ---- packets ---- */

/* All packets of the stream, each followed by a '|', when it comes cut at these places. */
static int unpack(const unsigned char *stream, size_t size, size_t cut1, size_t cut2,
                  struct bytes *ret)
{
        size_t from[] = {0, cut1, cut2}, to[] = {cut1, cut2, size};
        struct wire_in in;
        int r = 0;

        wire_in_init(&in);
        ret->size = 0;
        for (int i = 0; i < 3 && r >= 0; i++) {
                const unsigned char *at = stream + from[i];
                const unsigned char *packet;
                size_t left = to[i] - from[i], packet_size;

                while ((r = wire_in_next(&in, &at, &left, &packet, &packet_size)) > 0) {
                        add(ret, packet, packet_size);
                        add(ret, "|", 1);
                }
        }
        wire_in_done(&in);
        return r;
}

static void packets_come_whole_out_of_every_cut(void)
{
        static const char stream[] = "\0\0\0\5hello\0\0\0\7goodbye\0\0\0\5ab\0\0\0\0\0\0\6longer";
        const unsigned char *bytes = (const unsigned char *)stream;
        struct bytes got;

        for (size_t i = 0; i < sizeof(stream); i++) {
                for (size_t k = i; k < sizeof(stream); k++) {
                        CHECK_EQ(unpack(bytes, sizeof(stream) - 1, i,
                                        k < sizeof(stream) - 1 ? k : sizeof(stream) - 1, &got),
                                 0);
                        CHECK_EQ(got.size, 27);
                        CHECK(memcmp(got.data, "hello|goodbye|ab\0\0\0|longer|", 27) == 0);
                }
                if (i == sizeof(stream) - 2)
                        break;
        }
}

static void lengths_that_cant_be_end_it(void)
{
        static const char *const lengths[] = {"\0\0\0\0", "\0\0\0\4", "\0\4\0\1",
                                              "\xff\xff\xff\xff", "SSH-"};
        struct bytes got;

        for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
                const unsigned char *bytes = (const unsigned char *)lengths[i];

                for (size_t cut = 0; cut <= 4; cut++)
                        CHECK_EQ(unpack(bytes, 4, cut, 4, &got), -EPROTO);
        }
}

/* ---- answers ---- */

static struct bytes good_answer(size_t i)
{
        struct bytes b;

        switch (i) {
        case 0:
                b = answer(WIRE_HANDLE, 1);
                add_text(&b, "handle", 6);
                return b;
        case 1:
                b = answer(WIRE_DATA, 1);
                add_text(&b, "data", 4);
                return b;
        case 2:
                b = answer(WIRE_ATTRS, 1);
                add_attrs(&b, 0100644, 5);
                return b;
        case 3:
                b = answer(WIRE_NAME, 1);
                add32(&b, 2);
                add_name(&b, "one", 3, 0100644);
                add_name(&b, "two", 3, 040755);
                return b;
        default:
                b = answer(WIRE_ATTRS, 1);
                add32(&b, 0x80000000u);
                add32(&b, 1);
                add_text(&b, "x@y", 3);
                add_text(&b, "", 0);
                return b;
        }
}

static void answers_cut_anywhere_or_too_long_are_refused(void)
{
        struct wire_answer a;

        for (size_t i = 0; i < 5; i++) {
                struct bytes b = good_answer(i);
                size_t size = b.size;

                CHECK_EQ(read_one(&b, &a), 0);
                CHECK_EQ(a.id, 1);
                for (b.size = 0; b.size < size; b.size++)
                        CHECK_EQ(read_one(&b, &a), -EPROTO);
                b.size = size;
                add(&b, "", 1);
                CHECK_EQ(read_one(&b, &a), -EPROTO);
        }
}

static void status_may_come_without_a_sentence(void)
{
        struct bytes b = answer(WIRE_STATUS, 9);
        struct wire_answer a;

        CHECK_EQ(read_one(&b, &a), -EPROTO);
        add32(&b, 2);
        CHECK_EQ(read_one(&b, &a), 0);
        CHECK_EQ(a.status, 2);
        add_text(&b, "No such file", 12);
        add_text(&b, "en", 2);
        CHECK_EQ(read_one(&b, &a), 0);
}

static void counts_and_lengths_that_lie_are_refused(void)
{
        struct wire_answer a;
        struct bytes b = answer(WIRE_NAME, 1);

        add32(&b, 0xffffffff);
        add_name(&b, "one", 3, 0100644);
        CHECK_EQ(read_one(&b, &a), -EPROTO);
        b = answer(WIRE_NAME, 1);
        add32(&b, 0); /* no names, and not the end either: it could go on for ever */
        CHECK_EQ(read_one(&b, &a), -EPROTO);
        b = answer(WIRE_ATTRS, 1);
        add32(&b, 0x80000000u);
        add32(&b, 0xffffffff);
        CHECK_EQ(read_one(&b, &a), -EPROTO);
        b = answer(WIRE_ATTRS, 1);
        add32(&b, 0x10); /* nobody knows what would follow */
        CHECK_EQ(read_one(&b, &a), -EPROTO);
        b = answer(WIRE_HANDLE, 1);
        add32(&b, 0);
        CHECK_EQ(read_one(&b, &a), -EPROTO);
        b = answer(WIRE_HANDLE, 1);
        add32(&b, SFTP_HANDLE_MAX + 1);
        b.size += SFTP_HANDLE_MAX + 1;
        CHECK_EQ(read_one(&b, &a), -EPROTO);
        b = answer(77, 1);
        CHECK_EQ(read_one(&b, &a), -EPROTO);
}

static void absurd_attributes_become_possible_ones(void)
{
        struct bytes b = answer(WIRE_ATTRS, 1);
        struct wire_answer a;

        add_attrs(&b, 0xffffffff, UINT64_MAX);
        CHECK_EQ(read_one(&b, &a), 0);
        CHECK_EQ(a.st.st_size, INT64_MAX);
        CHECK_EQ(a.st.st_mode, 0177777);
        CHECK_EQ(a.st.st_mtim.tv_sec, 4000000000u);
}

static void an_answer_of_another_kind_belongs_to_nobody(void)
{
        struct bytes b = answer(WIRE_DATA, 1);
        struct wire_answer a;
        struct sftp_op op = {.type = SFTP_LSTAT};
        char buffer[4];

        add_text(&b, "abcde", 5);
        CHECK_EQ(wire_read_answer(b.data, b.size, &a), 0);
        CHECK_EQ(wire_take(&op, &a), -EPROTO);
        op = (struct sftp_op){.type = SFTP_READ, .buffer = buffer, .size = 4};
        CHECK_EQ(wire_take(&op, &a), -EPROTO); /* more than was asked for */
        a = (struct wire_answer){.kind = WIRE_STATUS, .status = WIRE_OK};
        CHECK_EQ(wire_take(&op, &a), -EPROTO); /* without data */
        a.status = WIRE_EOF;
        CHECK_EQ(wire_take(&op, &a), 0);
        CHECK_EQ(op.error, 0);
        CHECK_EQ(op.got, 0);
        op.type = SFTP_LSTAT;
        CHECK_EQ(wire_take(&op, &a), 0);
        CHECK_EQ(op.error, -EIO);
}

static void names_that_cant_be_are_passed_over(void)
{
        static const struct {
                const char *name;
                size_t size;
        } names[] = {{".", 1},    {"..", 2}, {"", 0},    {"a/b", 3},
                     {"a\0b", 3}, {"/", 1},  {"...", 3}, {"\xff\n", 2}};
        struct bytes b = answer(WIRE_NAME, 1);
        static char longest[NAME_MAX + 1];
        struct wire_answer a;
        struct sftp_names *n;
        struct sftp_name name;
        size_t cursor = 0;

        memset(longest, 'l', sizeof(longest));
        add32(&b, 10);
        for (size_t i = 0; i < 8; i++)
                add_name(&b, names[i].name, names[i].size, i == 7 ? 0 : 0100600);
        add_name(&b, longest, NAME_MAX + 1, 0100600);
        add_name(&b, longest, NAME_MAX, 0100600);
        CHECK_EQ(wire_read_answer(b.data, b.size, &a), 0);
        n = sftp_names_new(a.bytes);
        if (!CHECK(n && sftp_names_next(n, &cursor, &name)))
                return;
        CHECK_STR(name.name, "...");
        CHECK(sftp_names_next(n, &cursor, &name));
        CHECK_STR(name.name, "\xff\n");
        CHECK(S_ISDIR(name.st.st_mode)); /* as its line says */
        CHECK(sftp_names_next(n, &cursor, &name));
        CHECK_EQ(strlen(name.name), NAME_MAX);
        CHECK(!sftp_names_next(n, &cursor, &name));
        CHECK(!sftp_names_next(n, &cursor, &name));
        sftp_names_free(n);
}

static void links_text_is_one_name_that_fits(void)
{
        struct bytes b = answer(WIRE_NAME, 1);
        struct wire_answer a;
        char buffer[6] = "";
        struct sftp_op op = {.type = SFTP_READLINK, .buffer = buffer, .size = sizeof(buffer)};

        add32(&b, 1);
        add_name(&b, "../ab", 5, 0);
        CHECK_EQ(wire_read_answer(b.data, b.size, &a), 0);
        CHECK_EQ(wire_take(&op, &a), 0);
        CHECK_EQ(op.error, 0);
        CHECK_STR(buffer, "../ab");
        op.size = 5;
        CHECK_EQ(wire_take(&op, &a), 0);
        CHECK_EQ(op.error, -ENAMETOOLONG);
        b = answer(WIRE_NAME, 1);
        add32(&b, 1);
        add_name(&b, "a\0b", 3, 0);
        op.size = sizeof(buffer);
        CHECK_EQ(wire_read_answer(b.data, b.size, &a), 0);
        CHECK_EQ(wire_take(&op, &a), 0);
        CHECK_EQ(op.error, -EIO);
}

static void version_tells_what_the_server_can(void)
{
        struct bytes b = {0};
        uint32_t version;
        unsigned features;
        size_t size;

        b.data[b.size++] = WIRE_VERSION;
        add32(&b, 3);
        add_text(&b, "posix-rename@openssh.com", 24);
        add_text(&b, "1", 1);
        add_text(&b, "statvfs@openssh.com", 19);
        add_text(&b, "1", 1); /* not the version that is known */
        add_text(&b, "fsync@openssh.com", 17);
        add_text(&b, "1", 1);
        CHECK_EQ(wire_read_version(b.data, b.size, &version, &features), 0);
        CHECK_EQ(version, 3);
        CHECK_EQ(features, SFTP_CAN_POSIX_RENAME | SFTP_CAN_FSYNC);
        size = b.size;
        for (b.size = 1; b.size < size; b.size++) { /* whole at the end of each pair only */
                int r = wire_read_version(b.data, b.size, &version, &features);

                CHECK(r == -EPROTO || b.size == 5 || b.size == 38 || b.size == 66);
        }
        b.data[0] = WIRE_STATUS;
        CHECK_EQ(wire_read_version(b.data, size, &version, &features), -EPROTO);
}

static void bodies_of_extensions_are_read_to_the_byte(void)
{
        struct bytes b = {0};
        struct statvfs vfs;
        struct wire_limits limits;

        for (uint64_t i = 1; i <= 11; i++)
                add64(&b, i);
        CHECK_EQ(wire_read_statvfs((struct wire_bytes){b.data, 88}, &vfs), 0);
        CHECK_EQ(vfs.f_bavail, 5);
        CHECK_EQ(vfs.f_flag, ST_NOSUID);
        CHECK_EQ(vfs.f_namemax, 11);
        CHECK_EQ(wire_read_statvfs((struct wire_bytes){b.data, 87}, &vfs), -EPROTO);
        CHECK_EQ(wire_read_statvfs((struct wire_bytes){b.data, 96}, &vfs), -EPROTO);
        CHECK_EQ(wire_read_limits((struct wire_bytes){b.data, 32}, &limits), 0);
        CHECK_EQ(limits.handles, 4);
        CHECK_EQ(wire_read_limits((struct wire_bytes){b.data, 31}, &limits), -EPROTO);
}

static void statuses_have_their_errno(void)
{
        static const int codes[] = {0,       -EIO,          -ENOENT,       -EACCES,    -EIO,
                                    -EINVAL, -EHOSTUNREACH, -EHOSTUNREACH, -EOPNOTSUPP};

        for (uint32_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
                CHECK_EQ(wire_errno(i), codes[i]);
        CHECK_EQ(wire_errno(11), -EEXIST);
        CHECK_EQ(wire_errno(14), -ENOSPC);
        CHECK_EQ(wire_errno(18), -ENOTEMPTY);
        CHECK_EQ(wire_errno(24), -EISDIR);
        CHECK_EQ(wire_errno(25), -EIO);
        CHECK_EQ(wire_errno(UINT32_MAX), -EIO);
}

int main(void)
{
        RUN(requests_are_as_the_draft_has_them);
        RUN(length_of_a_write_counts_the_data_that_follow);
        RUN(symlinks_text_goes_first);
        RUN(times_beyond_the_wire_are_the_nearest);
        RUN(requests_that_cant_be_are_refused);
        RUN(packets_come_whole_out_of_every_cut);
        RUN(lengths_that_cant_be_end_it);
        RUN(answers_cut_anywhere_or_too_long_are_refused);
        RUN(status_may_come_without_a_sentence);
        RUN(counts_and_lengths_that_lie_are_refused);
        RUN(absurd_attributes_become_possible_ones);
        RUN(an_answer_of_another_kind_belongs_to_nobody);
        RUN(names_that_cant_be_are_passed_over);
        RUN(links_text_is_one_name_that_fits);
        RUN(version_tells_what_the_server_can);
        RUN(bodies_of_extensions_are_read_to_the_byte);
        RUN(statuses_have_their_errno);
        return check_result();
}
