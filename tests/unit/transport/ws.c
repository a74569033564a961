/* SPDX-License-Identifier: Apache-2.0 */
/* WebSocket frames, as a server may and may not send them, and what we send. */

#include "transport/http/ws.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/check.h"

struct seen {
        char kinds[32];
        size_t count, size;
        char last[200000];
};

static int on_message(void *ctx, enum ws_kind kind, const char *data, size_t size)
{
        struct seen *seen = ctx;

        CHECK(seen->count < sizeof(seen->kinds) && size < sizeof(seen->last));
        CHECK_EQ(data[size], '\0');
        seen->kinds[seen->count++] = (char)kind;
        memcpy(seen->last, data, size);
        seen->size = size;
        return 0;
}

static int feed(struct seen *seen, const char *data, size_t size, size_t step, size_t max)
{
        struct ws w = WS_INIT(max, on_message, seen);
        int r = 0;

        *seen = (struct seen){0};
        for (size_t at = 0; r == 0 && at < size; at += step)
                r = ws_feed(&w, data + at, size - at < step ? size - at : step);
        ws_done(&w);
        return r;
}

static struct seen *new_seen(void)
{
        return calloc(1, sizeof(struct seen));
}

static void messages_come_whole_however_they_are_cut(void)
{
        static const char all[] = "\x81\x02hi"
                                  "\x02\x03"
                                  "abc" /* begins a message, which a ping interrupts */
                                  "\x89\x01?"
                                  "\x80\x02"
                                  "de"
                                  "\x82\x00"
                                  "\x88\x02\x03\xe8";
        struct seen *seen = new_seen();

        for (size_t step = 1; step < 24; step++) {
                CHECK_EQ(feed(seen, all, sizeof(all) - 1, step, 100), 0);
                CHECK_EQ(seen->count, 5);
                CHECK(memcmp(seen->kinds, "\x01\x09\x02\x02\x08", 5) == 0);
                CHECK_EQ(seen->size, 2);
        }
        CHECK_EQ(feed(seen, all, 16, 16, 100), 0); /* up to "de" */
        CHECK(seen->size == 5 && memcmp(seen->last, "abcde", 5) == 0);
        free(seen);
}

static void what_no_server_may_send_is_refused(void)
{
        static const struct {
                const char *bytes;
                size_t size;
        } bad[] = {
                {"\x81\x82\0\0\0\0hi", 8}, /* masked */
                {"\xc1\x01x", 3}, /* of an extension */
                {"\x83\x01x", 3}, /* of no kind */
                {"\x8b\x01x", 3},
                {"\x80\x01x", 3}, /* goes on with nothing */
                {"\x01\x01x\x81\x01x", 6}, /* within another */
                {"\x09\x01x", 3}, /* half of a ping */
                {"\x89\x7e\x00\x80", 4}, /* a long one */
                {"\x82\x7e\x00\x65", 4}, /* 101 bytes */
                {"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 10},
                {"\x02\x60", 2}, /* 96, and then 5 more */
                {"\x88\x00\x81\x01x", 5}, /* behind the end */
        };
        struct seen *seen = new_seen();
        struct ws w = WS_INIT(100, on_message, seen);
        char long_one[96] = "";

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                if (i != 10)
                        CHECK_EQ(feed(seen, bad[i].bytes, bad[i].size, 1, 100), -EPROTO);
        CHECK_EQ(ws_feed(&w, bad[10].bytes, 2), 0);
        CHECK_EQ(ws_feed(&w, long_one, 96), 0);
        CHECK_EQ(ws_feed(&w, "\x80\x05", 2), -EPROTO);
        ws_done(&w);
        free(seen);
}

/* As the server reads it. */
static void check_sent(size_t size)
{
        struct buf out = BUF_INIT(1 << 20);
        char *data = malloc(size + 1);
        const unsigned char *at;
        size_t head = size < 126 ? 2 : size < 65536 ? 4 : 10;

        CHECK(data);
        for (size_t i = 0; data && i < size; i++)
                data[i] = (char)(i * 7);
        CHECK_EQ(ws_add(&out, WS_BINARY, data, size), 0);
        CHECK_EQ(out.size, head + 4 + size);
        at = (const unsigned char *)out.data;
        CHECK_EQ(at[0], 0x82);
        CHECK_EQ(at[1], 0x80 | (size < 126 ? size : size < 65536 ? 126 : 127));
        if (head == 4)
                CHECK_EQ((unsigned)at[2] << 8 | at[3], size);
        if (head == 10)
                CHECK_EQ((unsigned)at[7] << 16 | (unsigned)at[8] << 8 | at[9], size);
        for (size_t i = 0; data && i < size; i++)
                if ((char)(at[head + 4 + i] ^ at[head + i % 4]) != data[i])
                        CHECK_EQ(i, size); /* the first that differs */
        buf_done(&out);
        free(data);
}

static void what_is_sent_is_masked(void)
{
        static const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 100000};

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
                check_sent(sizes[i]);
}

static void server_proves_that_it_understood(void)
{
        CHECK(ws_is_accepted("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        CHECK(!ws_is_accepted("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="));
        CHECK(!ws_is_accepted("dGhlIHNhbXBsZSBub25jZQ==", ""));
        CHECK(!ws_is_accepted("dGhlIHNhbXBsZSBub25jZQ==", NULL));
}

int main(void)
{
        RUN(messages_come_whole_however_they_are_cut);
        RUN(what_no_server_may_send_is_refused);
        RUN(what_is_sent_is_masked);
        RUN(server_proves_that_it_understood);
        return check_result();
}
