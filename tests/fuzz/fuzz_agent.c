/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection on which an agent says anything: nothing comes out that leads elsewhere, and every
 * call ends.
 */

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "providers/agent/agent.h"
#include "providers/agent/wire.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Answers everything that is sent with the next part of the input, then ends. */
struct parrot {
        struct stream stream;
        const struct stream_events *events;
        const uint8_t *data;
        size_t left;
        unsigned sent;
};

static void say(struct parrot *p, const void *data, size_t size)
{
        p->events->data(p->events->ctx, false, data, size);
}

/* The greeting is right; then each part goes with a head of its own, whose id is right. */
static int on_send(struct stream *s, const void *data, size_t size)
{
        struct parrot *p = container_of(s, struct parrot, stream);
        struct wire_head head;
        unsigned char bytes[WIRE_HEAD];
        struct buf out = BUF_INIT(WIRE_PAYLOAD_MAX);
        struct wire_out o;

        (void)size;
        wire_head_get(data, &head);
        if (head.type == WIRE_HELLO) {
                wire_begin(&o, &out, head.id, WIRE_DONE);
                wire_u32(&o, 0);
                wire_u32(&o, WIRE_VERSION);
                assert(wire_end(&o) == 0);
                say(p, out.data, out.size);
                buf_done(&out);
                return 0;
        }
        while (p->left >= 2) {
                size_t n = p->data[1] < p->left - 2 ? p->data[1] : p->left - 2;
                const struct wire_head answer = {
                        .size = (uint32_t)n, .id = head.id, .type = WIRE_DATA + p->data[0] % 6};

                wire_head_put(bytes, &answer);
                say(p, bytes, sizeof(bytes));
                say(p, p->data + 2, n);
                p->data += 2 + n;
                p->left -= 2 + n;
        }
        if (p->sent++ == 0) {
                const struct stream_end end = {.has_code = true};

                p->events->end(p->events->ctx, &end);
        }
        return 0;
}

static int on_eof(struct stream *s)
{
        (void)s;
        return 0;
}

static size_t queued(struct stream *s)
{
        (void)s;
        return 0;
}

static void on_close(struct stream *s)
{
        (void)s;
}

static void check_path(const char *path)
{
        assert(path[0] != '/' && strcmp(path, "..") != 0 && strncmp(path, "../", 3) != 0 &&
               !strstr(path, "/../") && !strstr(path, "//"));
}

static int on_entry(struct file_list_sink *to, const char *path, const struct stat *st,
                    const char *target)
{
        (void)to;
        check_path(path);
        assert(!target || S_ISLNK(st->st_mode));
        return 0;
}

static int on_listed(struct file_list_sink *to, const char *path)
{
        (void)to;
        check_path(path);
        return 0;
}

static int on_file(struct file_sink *to, size_t index, int error, const struct stat *st,
                   const void *data, size_t size)
{
        (void)to;
        assert(index < 2 && error <= 0 && size <= 100);
        assert(error < 0 || S_ISREG(st->st_mode));
        for (size_t i = 0; i < size; i++)
                assert(((const char *)data)[i] == 0 || true); /* it can be read */
        return 0;
}

static void ask(struct agent *a, unsigned what, struct call *c)
{
        static const char *const paths[] = {"a", "b"};
        struct file_listing listing = {.path = "", .depth = 3};
        struct file_list_sink list = {on_entry, on_listed};
        struct file_sink files = {.file = on_file};
        struct change changes[2] = {{.kind = CHANGE_MKDIR, .path = "a"},
                                    {.kind = CHANGE_UNLINK, .path = "b"}};
        struct statvfs fs;
        struct stat st;
        char text[64];
        uint32_t handle;

        switch (what % 7) {
        case 0: (void)agent_list(a, c, &listing, &list); break;
        case 1: (void)agent_stat(a, c, "a", &st); break;
        case 2: (void)agent_readlink(a, c, "a", text, sizeof(text)); break;
        case 3: (void)agent_fetch(a, c, paths, 2, 100, &files); break;
        case 4: (void)agent_apply(a, c, changes, 2); break;
        case 5: (void)agent_read(a, c, 0, text, sizeof(text), 0, &st); break;
        default:
                (void)agent_statfs(a, c, &fs);
                (void)agent_open(a, c, "a", &handle, &st);
                break;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const struct stream_ops ops = {on_send, on_eof, queued, on_close};
        struct parrot p = {.stream.ops = &ops};
        struct agent *a;
        struct call c;

        if (size < 1 || agent_new(&a) < 0)
                return 0;
        p.events = agent_events(a);
        p.data = data + 1;
        p.left = size - 1;
        call_init(&c, clock_after(10 * NS_PER_S));
        assert(agent_start(a, &c, &p.stream) == 0);
        ask(a, data[0], &c);
        agent_unref(a);
        return 0;
}
