/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program in the sandbox that answers in our agent's place: each lie ends the connection, and
 * nothing of it reaches who asked.
 */

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "providers/agent/agent.h"
#include "providers/agent/wire.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"

#define OF(text) text, sizeof(text) - 1

struct liar {
        struct stream stream;
        const struct stream_events *events;
        const void *lie; /* frames that answer the first question, each with its id */
        void (*tell)(const void *lie, struct buf *to, uint32_t id);
        bool has_lied;
};

static int on_send(struct stream *s, const void *data, size_t size)
{
        struct liar *l = container_of(s, struct liar, stream);
        struct buf out = BUF_INIT(2 * WIRE_PAYLOAD_MAX);
        struct wire_head head;
        struct wire_out o;

        CHECK(size >= WIRE_HEAD);
        wire_head_get(data, &head);
        if (head.type == WIRE_HELLO) {
                wire_begin(&o, &out, head.id, WIRE_DONE);
                wire_u32(&o, 0);
                wire_u32(&o, WIRE_VERSION);
                CHECK_EQ(wire_end(&o), 0);
        } else if (!l->has_lied) {
                l->has_lied = true;
                l->tell(l->lie, &out, head.id);
        }
        if (out.size > 0)
                l->events->data(l->events->ctx, false, out.data, out.size);
        buf_done(&out);
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

static struct agent *start(struct liar *l, struct call *c)
{
        static const struct stream_ops ops = {on_send, on_eof, queued, on_close};
        struct agent *a = NULL;

        call_init(c, clock_after(10 * NS_PER_S));
        CHECK_EQ(agent_new(&a), 0);
        l->stream.ops = &ops;
        l->events = agent_events(a);
        CHECK_EQ(agent_start(a, c, &l->stream), 0);
        return a;
}

static const struct stat plain = {.st_mode = S_IFREG | 0644, .st_size = 3, .st_nlink = 1};

static void done(struct buf *to, uint32_t id, uint32_t error)
{
        struct wire_out o;

        wire_begin(&o, to, id, WIRE_DONE);
        wire_u32(&o, error);
        CHECK_EQ(wire_end(&o), 0);
}

/* A text as it is, whatever is in it. */
static void text(struct wire_out *o, const char *data, size_t size)
{
        wire_u32(o, (uint32_t)size);
        wire_bytes(o, data, size);
        wire_bytes(o, "", 1);
}

/* ---- listings ---- */

struct seen {
        struct file_list_sink sink;
        unsigned entries;
        unsigned good; /* that are named "good" */
};

static int on_entry(struct file_list_sink *to, const char *path, const struct stat *st,
                    const char *target)
{
        struct seen *s = container_of(to, struct seen, sink);

        (void)target;
        s->entries++;
        s->good += strcmp(path, "good") == 0 && S_ISREG(st->st_mode);
        return 0;
}

static int on_listed(struct file_list_sink *to, const char *path)
{
        (void)path;
        container_of(to, struct seen, sink)->entries++;
        return 0;
}

static int list(struct liar *l, struct seen *s)
{
        const struct file_listing all = {.path = "", .depth = 3};
        struct call c;
        struct agent *a = start(l, &c);
        int r;

        *s = (struct seen){.sink = {on_entry, on_listed}};
        r = agent_list(a, &c, &all, &s->sink);
        CHECK_EQ(agent_error(a) < 0, r < 0);
        agent_unref(a);
        return r;
}

struct name {
        const char *data;
        size_t size;
        uint32_t kind;
        bool is_good;
};

/* A good entry before it. */
static void tell_name(const void *lie, struct buf *to, uint32_t id)
{
        const struct name *n = lie;
        struct wire_out o;

        wire_begin(&o, to, id, WIRE_ENTRIES);
        wire_u32(&o, 1);
        text(&o, OF("good"));
        wire_stat(&o, &plain);
        wire_u32(&o, n->kind);
        text(&o, n->data, n->size);
        if (n->kind > 0)
                wire_stat(&o, &plain);
        CHECK_EQ(wire_end(&o), 0);
        done(to, id, 0);
}

static void names_lead_nowhere_else(void)
{
        static const struct name names[] = {
                {OF("also"), 1, true},
                {OF("d/also"), 1, true},
                {OF("a\nb\xff"), 1, true},
                {OF("..."), 1, true},
                {OF("d"), 0, true},
                {OF(""), 0, true},
                {OF(".."), 1, false},
                {OF("."), 1, false},
                {OF("../x"), 1, false},
                {OF("a/../../x"), 1, false},
                {OF("a/.."), 1, false},
                {OF("a/./x"), 1, false},
                {OF("/etc/passwd"), 1, false},
                {OF("/"), 1, false},
                {OF("a//x"), 1, false},
                {OF("a/"), 1, false},
                {OF("a\0b"), 1, false},
                {OF("\0"), 1, false},
                {OF("a\0"), 1, false},
                {OF(".."), 0, false},
                {OF("/"), 0, false},
                {OF("d\0"), 0, false},
                {OF("d"), 3, false},
                {OF("d"), UINT32_MAX, false},
        };

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                struct liar l = {.lie = &names[i], .tell = tell_name};
                struct seen s;

                if (!CHECK_EQ(list(&l, &s), names[i].is_good ? 0 : -EPROTO) ||
                    !CHECK_EQ(s.entries, names[i].is_good ? 2 : 1) || !CHECK_EQ(s.good, 1))
                        (void)fprintf(stderr, "name %zu\n", i);
        }
}

/* What an entry says of a file: as bytes, since no struct stat can hold all of it. */
struct facts {
        uint32_t mode;
        uint64_t size, blocks;
        uint32_t ns;
        bool is_good;
};

static void tell_facts(const void *lie, struct buf *to, uint32_t id)
{
        const struct facts *f = lie;
        const struct stat st = {.st_mode = f->mode,
                                .st_size = (off_t)f->size,
                                .st_blocks = (blkcnt_t)f->blocks,
                                .st_nlink = 1,
                                .st_mtim = {.tv_nsec = (long)f->ns}};
        struct wire_out o;

        wire_begin(&o, to, id, WIRE_ENTRIES);
        wire_u32(&o, 1);
        text(&o, OF("good"));
        wire_stat(&o, &st);
        CHECK_EQ(wire_end(&o), 0);
        done(to, id, 0);
}

static void attributes_are_such_as_can_be(void)
{
        static const struct facts facts[] = {
                {S_IFREG | 07777, INT64_MAX, INT64_MAX, 999999999, true},
                {S_IFREG | 0644, UINT64_C(1) << 63, 0, 0, false},
                {S_IFREG | 0644, UINT64_MAX, 0, 0, false},
                {S_IFREG | 0644, 0, UINT64_MAX, 0, false},
                {S_IFREG | 0644, 0, 0, 1000000000, false},
                {S_IFREG | 0644, 0, 0, UINT32_MAX, false},
                {0644, 0, 0, 0, false}, /* of no type */
                {S_IFMT | 0644, 0, 0, 0, false},
                {S_IFREG | 0x40000644, 0, 0, 0, false},
        };

        for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
                struct liar l = {.lie = &facts[i], .tell = tell_facts};
                struct seen s;

                if (!CHECK_EQ(list(&l, &s), facts[i].is_good ? 0 : -EPROTO) ||
                    !CHECK_EQ(s.entries, facts[i].is_good))
                        (void)fprintf(stderr, "facts %zu\n", i);
        }
}

/* ---- frames ---- */

enum frame_lie {
        OTHER_QUESTION, /* an answer to what nobody asked */
        OTHER_TYPE,
        NO_TYPE,
        HUGE_FRAME,
        EMPTY_FRAME,
        HUGE_TEXT,
        CUT_ENTRY,
        MORE_AT_THE_END,
        FRAME_LIES,
};

static void tell_frame(const void *lie, struct buf *to, uint32_t id)
{
        struct wire_head head = {.size = 4, .id = id, .type = WIRE_DONE};
        unsigned char bytes[WIRE_HEAD];
        struct wire_out o;

        switch (*(const enum frame_lie *)lie) {
        case OTHER_QUESTION: head.id = id + 1; break;
        case OTHER_TYPE: head.type = WIRE_FILE; break;
        case NO_TYPE: head.type = UINT32_MAX; break;
        case HUGE_FRAME: head.size = UINT32_MAX; break;
        case EMPTY_FRAME: head.size = 0; break;
        case HUGE_TEXT:
                wire_begin(&o, to, id, WIRE_ENTRIES);
                wire_u32(&o, 1);
                wire_u32(&o, UINT32_MAX);
                wire_bytes(&o, "name", 5);
                CHECK_EQ(wire_end(&o), 0);
                return;
        case CUT_ENTRY:
                wire_begin(&o, to, id, WIRE_ENTRIES);
                wire_u32(&o, 1);
                text(&o, OF("name"));
                wire_u32(&o, S_IFREG | 0644);
                CHECK_EQ(wire_end(&o), 0);
                return;
        case MORE_AT_THE_END:
        case FRAME_LIES:
        default: head.size = 8; break;
        }
        wire_head_put(bytes, &head);
        CHECK_EQ(buf_add(to, bytes, sizeof(bytes)), 0);
        CHECK_EQ(buf_add(to, "\0\0\0\0\0\0\0", head.size < 8 ? head.size : 8), 0);
}

static void frames_answer_the_question(void)
{
        for (enum frame_lie i = 0; i < FRAME_LIES; i++) {
                struct liar l = {.lie = &i, .tell = tell_frame};
                struct seen s;

                if (!CHECK_EQ(list(&l, &s), -EPROTO) || !CHECK_EQ(s.entries, 0))
                        (void)fprintf(stderr, "frame %d\n", (int)i);
        }
}

/* ---- whole files ---- */

struct got {
        struct file_sink sink;
        unsigned files;
};

static int on_file(struct file_sink *to, size_t index, int error, const struct stat *st,
                   const void *data, size_t size)
{
        struct got *g = container_of(to, struct got, sink);

        (void)st;
        CHECK_EQ(index, g->files);
        CHECK(error < 0 || (size == 3 && memcmp(data, "abc", 3) == 0));
        g->files++;
        return 0;
}

/* The answer to a question for two files of 100 bytes at most: one file, then the end. */
struct file {
        uint32_t index, error;
        uint64_t size;
        mode_t mode;
        size_t sent; /* of content */
        unsigned files; /* that are handed on */
};

static void tell_file(const void *lie, struct buf *to, uint32_t id)
{
        const struct file *f = lie;
        const struct stat st = {.st_mode = f->mode, .st_size = 3, .st_nlink = 1};
        struct wire_out o;

        wire_begin(&o, to, id, WIRE_FILE);
        wire_u32(&o, f->index);
        wire_u32(&o, f->error);
        wire_u64(&o, f->size);
        if (f->error == 0)
                wire_stat(&o, &st);
        CHECK_EQ(wire_end(&o), 0);
        if (f->sent > 0) {
                wire_begin(&o, to, id, WIRE_DATA);
                wire_bytes(&o, "abcdef", f->sent);
                CHECK_EQ(wire_end(&o), 0);
        }
        done(to, id, 0);
}

static void files_are_those_that_were_asked_for(void)
{
        static const struct file lies[] = {
                {0, 0, 3, S_IFREG | 0644, 3, 1}, /* the second is missing */
                {0, ENOENT, 0, 0, 0, 1},           {1, 0, 3, S_IFREG | 0644, 3, 0},
                {2, 0, 3, S_IFREG | 0644, 3, 0},   {UINT32_MAX, 0, 3, S_IFREG | 0644, 3, 0},
                {0, 0, 101, S_IFREG | 0644, 3, 0}, {0, 0, UINT64_MAX, S_IFREG | 0644, 3, 0},
                {0, 0, 3, S_IFREG | 0644, 4, 0},   {0, 0, 3, S_IFREG | 0644, 2, 0},
                {0, 0, 3, S_IFDIR | 0755, 3, 0},   {0, 0, 3, S_IFLNK | 0777, 3, 0},
                {0, ENOENT, 3, 0, 3, 0},
        };
        static const char *const paths[] = {"a", "b"};

        for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
                struct liar l = {.lie = &lies[i], .tell = tell_file};
                struct got g = {.sink = {.file = on_file}};
                struct call c;
                struct agent *a = start(&l, &c);

                if (!CHECK_EQ(agent_fetch(a, &c, paths, 2, 100, &g.sink), -EPROTO) ||
                    !CHECK_EQ(g.files, lies[i].files))
                        (void)fprintf(stderr, "file %zu\n", i);
                agent_unref(a);
        }
}

/* ---- single answers ---- */

static void tell_target(const void *lie, struct buf *to, uint32_t id)
{
        const struct name *n = lie;
        struct wire_out o;

        wire_begin(&o, to, id, WIRE_DONE);
        wire_u32(&o, 0);
        text(&o, n->data, n->size);
        CHECK_EQ(wire_end(&o), 0);
}

static void targets_fit_where_they_go(void)
{
        static const struct {
                struct name target;
                int expected;
        } table[] = {
                {{OF("../up"), 0, true},
                 0}, /* a link may say so: nobody follows it but the kernel */
                {{OF("1234567"), 0, true}, 0},
                {{OF("12345678"), 0, false}, -ENAMETOOLONG},
                {{OF("a\0b"), 0, false}, -EPROTO},
        };

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                struct liar l = {.lie = &table[i].target, .tell = tell_target};
                char to[16] = "", *guard = to + 8;
                struct call c;
                struct agent *a = start(&l, &c);

                memcpy(guard, "guard", 6);
                CHECK_EQ(agent_readlink(a, &c, "link", to, 8), table[i].expected);
                CHECK_STR(guard, "guard");
                if (table[i].expected == 0)
                        CHECK_STR(to, table[i].target.data);
                agent_unref(a);
        }
}

/* More content than was asked for, or an end without its attributes. */
static void tell_read(const void *lie, struct buf *to, uint32_t id)
{
        struct wire_out o;

        wire_begin(&o, to, id, WIRE_DATA);
        wire_bytes(&o, "0123456789abcdef", *(const size_t *)lie);
        CHECK_EQ(wire_end(&o), 0);
        done(to, id, 0);
}

static void no_more_is_read_than_fits(void)
{
        static const size_t sizes[] = {4, 8, 9, 16};

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct liar l = {.lie = &sizes[i], .tell = tell_read};
                char data[16] = "", *guard = data + 8;
                struct call c;
                struct agent *a = start(&l, &c);

                memcpy(guard, "guard", 6);
                CHECK_EQ(agent_read(a, &c, 0, data, 8, 0, NULL), -EPROTO);
                CHECK_STR(guard, "guard");
                agent_unref(a);
        }
}

/* Answers to a batch of two: an index each. */
static void tell_changed(const void *lie, struct buf *to, uint32_t id)
{
        const uint32_t *index = lie;
        struct wire_out o;

        for (unsigned i = 0; i < 2; i++) {
                wire_begin(&o, to, id, WIRE_CHANGED);
                wire_u32(&o, index[i]);
                wire_u32(&o, 0);
                wire_u32(&o, 0);
                CHECK_EQ(wire_end(&o), 0);
        }
}

static void changes_are_answered_in_their_order(void)
{
        static const uint32_t lies[][2] = {{1, 0}, {0, 0}, {0, 2}, {UINT32_MAX, 0}};

        for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
                struct change changes[2] = {{.kind = CHANGE_MKDIR, .path = "a"},
                                            {.kind = CHANGE_UNLINK, .path = "b"}};
                struct liar l = {.lie = lies[i], .tell = tell_changed};
                struct call c;
                struct agent *a = start(&l, &c);

                changes[0].error = changes[1].error = -EINPROGRESS;
                CHECK_EQ(agent_apply(a, &c, changes, 2), -EPROTO);
                CHECK_EQ(changes[1].error, -EINPROGRESS);
                agent_unref(a);
        }
}

int main(void)
{
        RUN(names_lead_nowhere_else);
        RUN(attributes_are_such_as_can_be);
        RUN(frames_answer_the_question);
        RUN(files_are_those_that_were_asked_for);
        RUN(targets_fit_where_they_go);
        RUN(no_more_is_read_than_fits);
        RUN(changes_are_answered_in_their_order);
        return check_result();
}
