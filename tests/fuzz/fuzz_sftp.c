/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that says anything, in pieces of any size, to a client with one operation of each type
 * in flight.
 *
 *      first byte   how large the pieces are; 0 is all at once
 *      the rest     what comes; "####" and one byte more become the number of a request in flight,
 *                   the byte saying which
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/clock.h"
#include "transport/sftp/sftp.h"
#include "transport/stream.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

#define OPS SFTP_COPY_DATA
#define SLOTS 2048

/* ---- a stream that takes everything ---- */

static int take(struct stream *s, const void *data, size_t size)
{
        (void)s;
        (void)data;
        (void)size;
        return 0;
}

static int take_eof(struct stream *s)
{
        (void)s;
        return 0;
}

static size_t nothing(struct stream *s)
{
        (void)s;
        return 0;
}

static void ignore(struct stream *s)
{
        (void)s;
}

static const struct stream_ops ops = {take, take_eof, nothing, ignore};

/* ---- the client ---- */

static void greet(struct sftp *s, const struct stream_events *events)
{
        static const unsigned char version[] = "\0\0\0\x61\2\0\0\0\3"
                                               "\0\0\0\x14hardlink@openssh.com\0\0\0\1"
                                               "1"
                                               "\0\0\0\x13statvfs@openssh.com\0\0\0\1"
                                               "2"
                                               "\0\0\0\x12limits@openssh.com\0\0\0\1"
                                               "1"
                                               "\0\0\0\0\0\0\0\0";
        static struct stream stream = {&ops};
        struct call c;

        call_init(&c, 0);
        if (sftp_start(s, &c, &stream, true) != -ETIMEDOUT) /* nobody has answered yet */
                abort();
        events->data(events->ctx, false, version, sizeof(version) - 1);
}

static char buffers[OPS + 1][65536];

static void ask(struct sftp *s, struct sftp_queue *q, struct sftp_op *all)
{
        static const struct sftp_handle other = {.size = 1};

        for (int i = 1; i <= OPS; i++) {
                all[i] = (struct sftp_op){
                        .type = (enum sftp_type)i,
                        .is_bulk = i % 2,
                        .path = "path",
                        .to = "to",
                        .handle = {.size = 1},
                        .other = &other,
                        .size = i == SFTP_READ ? 1000 : 100,
                        .data = buffers[i],
                        .buffer = buffers[i],
                };
        }
        sftp_submit(s, q, all + 1, OPS);
}

static void read_names(struct sftp_op *op)
{
        struct sftp_name name;
        size_t cursor = 0;

        while (op->names && sftp_names_next(op->names, &cursor, &name)) {
                if (!*name.name || strchr(name.name, '/') || strcmp(name.name, "..") == 0)
                        abort();
        }
        sftp_names_free(op->names);
        op->names = NULL;
}

/* Numbers of requests, so that not all of the search is spent on finding one. */
static void put_numbers(unsigned char *data, size_t size, const struct sftp_op *all)
{
        for (size_t i = 0; i + 5 <= size; i++) {
                uint32_t id;

                if (data[i] != '#' || data[i + 1] != '#' || data[i + 2] != '#' ||
                    data[i + 3] != '#')
                        continue;
                id = SLOTS + all[1 + data[i + 4] % OPS].slot;
                data[i] = (unsigned char)(id >> 24);
                data[i + 1] = (unsigned char)(id >> 16);
                data[i + 2] = (unsigned char)(id >> 8);
                data[i + 3] = (unsigned char)id;
                memmove(data + i + 4, data + i + 5, size - i - 5);
        }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
        struct sftp_op all[OPS + 1];
        const struct stream_events *events;
        struct sftp_queue q;
        struct sftp_op *op;
        struct sftp *s = NULL;
        unsigned char *bytes;
        size_t piece;

        if (size < 1 || sftp_new(&s) < 0)
                return 0;
        bytes = malloc(size);
        if (!bytes)
                abort();
        memcpy(bytes, data + 1, size - 1);
        piece = data[0] ? data[0] : size;
        events = sftp_events(s);
        sftp_queue_init(&q);
        greet(s, events);
        ask(s, &q, all);
        put_numbers(bytes, size - 1, all);
        for (size_t at = 0; at < size - 1; at += piece) {
                size_t n = size - 1 - at < piece ? size - 1 - at : piece;
                unsigned char *part = malloc(n); /* of its own, so that a read beyond is seen */

                if (!part)
                        abort();
                memcpy(part, bytes + at, n);
                events->data(events->ctx, false, part, n);
                free(part);
        }
        while ((op = sftp_next_now(&q)))
                read_names(op);
        sftp_queue_done(&q);
        sftp_unref(s);
        free(bytes);
        return 0;
}
