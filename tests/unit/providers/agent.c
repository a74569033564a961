/* SPDX-License-Identifier: Apache-2.0 */
/* Our own agent as a child of this program, on a directory of this machine. */

#include "providers/agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/base/list.h"
#include "transport/base/random.h"
#include "transport/child.h"

#define LARGE ((size_t)9 << 20)

static const char *program; /* the agent */
static char dir[PATH_MAX];
static struct agent *agent;

static struct call *new_call(struct call *c)
{
        call_init(c, clock_after(100 * NS_PER_S));
        return c;
}

static struct agent *start(const char *root)
{
        const char *const argv[] = {program, "files", root, NULL};
        static const char *const envp[] = {NULL};
        struct stream *s = NULL;
        struct agent *a = NULL;
        struct call c;

        CHECK_EQ(agent_new(&a), 0);
        if (!CHECK_EQ(child_open(program, argv, envp, agent_events(a), new_call(&c), &s), 0))
                _exit(1); /* there is nothing to test */
        CHECK_EQ(agent_start(a, &c, s), 0);
        return a;
}

/* ---- content ---- */

struct bytes {
        struct file_source source;
        unsigned char *data;
        int error; /* of reads beyond `good` */
        uint64_t good;
};

static int read_bytes(struct file_source *from, void *data, size_t size, uint64_t offset)
{
        const struct bytes *b = container_of(from, struct bytes, source);

        if (b->error < 0 && offset + size > b->good)
                return b->error;
        memcpy(data, b->data + offset, size);
        return 0;
}

static void bytes_init(struct bytes *b, size_t size)
{
        *b = (struct bytes){.source = {.read = read_bytes, .size = size}, .data = malloc(size + 1)};
        for (size_t i = 0; i < size; i++)
                b->data[i] = (unsigned char)(i * 2654435761U >> 13);
}

static int apply_one(struct change *x)
{
        struct call c;

        x->error = -EINPROGRESS;
        CHECK_EQ(agent_apply(agent, new_call(&c), x, 1), 0);
        return x->error;
}

static int store(const char *path, struct bytes *from)
{
        struct change x = {.kind = CHANGE_STORE,
                           .path = path,
                           .mode = 0640,
                           .what = FILE_SET_MTIME,
                           .mtime = {1600000000, 123456789},
                           .from = &from->source};
        int r = apply_one(&x);

        CHECK_EQ(x.has_st, r == 0);
        if (r == 0) {
                CHECK_EQ(x.st.st_size, from->source.size);
                CHECK_EQ(x.st.st_mode, S_IFREG | 0640);
                CHECK_EQ(x.st.st_mtim.tv_nsec, 123456789);
        }
        return r;
}

static int make_dir(const char *path)
{
        struct change x = {.kind = CHANGE_MKDIR, .path = path, .mode = 0755};

        return apply_one(&x);
}

static bool is_content(const char *path, const struct bytes *b)
{
        unsigned char *data = malloc(b->source.size + 2);
        char whole[2 * PATH_MAX];
        bool is_same;
        ssize_t n;
        int fd;

        (void)snprintf(whole, sizeof(whole), "%s/%s", dir, path);
        fd = open(whole, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : file_pread_full(fd, data, b->source.size + 1, 0);
        is_same = n == (ssize_t)b->source.size && memcmp(data, b->data, (size_t)n) == 0;
        closep(&fd);
        free(data);
        return is_same;
}

static void content_of_any_size_arrives(void)
{
        static const size_t sizes[] = {0, 1, 4096, 128 * 1024, 128 * 1024 + 1, 300000, LARGE};

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct bytes b;

                bytes_init(&b, sizes[i]);
                CHECK_EQ(store("sized", &b), 0);
                CHECK(is_content("sized", &b));
                free(b.data);
        }
}

static void refused_content_is_taken_all_the_same(void)
{
        struct bytes b;

        bytes_init(&b, LARGE);
        CHECK_EQ(store("no/such", &b), -ENOENT);
        CHECK_EQ(store("after", &b), 0);
        CHECK(is_content("after", &b));
        free(b.data);
}

static void content_that_cannot_be_had_stores_nothing(void)
{
        struct bytes b;
        struct stat st;
        struct call c;

        bytes_init(&b, LARGE);
        b.error = -EIO;
        b.good = LARGE / 2;
        CHECK_EQ(store("half", &b), -EIO);
        CHECK_EQ(agent_stat(agent, new_call(&c), "half", &st), -ENOENT);
        b.good = 0;
        CHECK_EQ(store("none", &b), -EIO);
        b.source.size = 10;
        CHECK_EQ(store("short", &b), -EIO);
        b.error = 0;
        CHECK_EQ(store("fine", &b), 0);
        free(b.data);
}

static void a_batch_keeps_its_order_and_its_errors(void)
{
        enum { COUNT = 6000 };
        struct change *list = calloc(COUNT, sizeof(*list));
        char(*names)[32] = calloc(COUNT, sizeof(*names));
        struct bytes b;
        struct call c;

        bytes_init(&b, 3000);
        for (size_t i = 0; i < COUNT; i++) {
                (void)snprintf(names[i], sizeof(names[i]), "%s/f%zu", i % 7 == 3 ? "nodir" : "many",
                               i);
                list[i] = (struct change){.kind = CHANGE_STORE,
                                          .path = names[i],
                                          .mode = 0600,
                                          .from = &b.source,
                                          .error = -EINPROGRESS};
        }
        CHECK_EQ(make_dir("many"), 0);
        CHECK_EQ(agent_apply(agent, new_call(&c), list, COUNT), 0);
        for (size_t i = 0; i < COUNT; i++)
                CHECK_EQ(list[i].error, i % 7 == 3 ? -ENOENT : 0);
        free(list);
        free(names);
        free(b.data);
}

/* ---- listings ---- */

struct seen {
        struct file_list_sink sink;
        size_t entries, listed, links;
        int error; /* to answer after some */
        size_t after;
};

static int on_entry(struct file_list_sink *to, const char *path, const struct stat *st,
                    const char *target)
{
        struct seen *s = container_of(to, struct seen, sink);

        (void)path;
        s->entries++;
        s->links += S_ISLNK(st->st_mode) && target && strcmp(target, "to nowhere") == 0;
        return s->error != 0 && s->entries > s->after ? s->error : 0;
}

static int on_listed(struct file_list_sink *to, const char *path)
{
        (void)path;
        container_of(to, struct seen, sink)->listed++;
        return 0;
}

static void a_tree_is_listed_whole(void)
{
        struct file_listing what = {.path = "", .depth = UINT_MAX};
        struct seen s = {.sink = {on_entry, on_listed}};
        struct change x = {.kind = CHANGE_SYMLINK, .path = "many/link", .to = "to nowhere"};
        struct call c;

        CHECK_EQ(apply_one(&x), 0);
        CHECK_EQ(agent_list(agent, new_call(&c), &what, &s.sink), 0);
        CHECK(s.entries > 5000);
        CHECK_EQ(s.listed, 2);
        CHECK_EQ(s.links, 1);
        what.path = "absent";
        CHECK_EQ(agent_list(agent, new_call(&c), &what, &s.sink), -ENOENT);
        what.path = "sized";
        CHECK_EQ(agent_list(agent, new_call(&c), &what, &s.sink), -ENOTDIR);
}

static void a_sink_that_has_enough_ends_it(void)
{
        struct file_listing what = {.path = "", .depth = UINT_MAX};
        struct seen s = {.sink = {on_entry, on_listed}, .error = -ECANCELED, .after = 10};
        struct stat st;
        struct call c;

        CHECK_EQ(agent_list(agent, new_call(&c), &what, &s.sink), -ECANCELED);
        CHECK_EQ(s.entries, 11);
        CHECK_EQ(agent_stat(agent, new_call(&c), "", &st), 0);
        CHECK(S_ISDIR(st.st_mode));
}

/* ---- reading ---- */

struct fetched {
        struct file_sink sink;
        const struct bytes *expected;
        size_t good, large, absent;
};

static int on_file(struct file_sink *to, size_t index, int error, const struct stat *st,
                   const void *data, size_t size)
{
        struct fetched *f = container_of(to, struct fetched, sink);

        (void)index;
        f->good += error == 0 && size == f->expected->source.size &&
                   memcmp(data, f->expected->data, size) == 0;
        f->large += error == -EFBIG && (size_t)st->st_size == LARGE;
        f->absent += error == -ENOENT;
        return 0;
}

static void many_files_are_fetched(void)
{
        enum { COUNT = 3000 };
        struct fetched f = {.sink.file = on_file};
        const char **paths = calloc(COUNT, sizeof(*paths));
        struct bytes b;
        struct call c;

        bytes_init(&b, 100000);
        CHECK_EQ(store("hundred", &b), 0);
        f.expected = &b;
        for (size_t i = 0; i < COUNT; i++)
                paths[i] = i % 3 == 0 ? "hundred" : i % 3 == 1 ? "after" : "not there";
        CHECK_EQ(agent_fetch(agent, new_call(&c), paths, COUNT, 1 << 20, &f.sink), 0);
        CHECK_EQ(f.good, COUNT / 3);
        CHECK_EQ(f.large, COUNT / 3);
        CHECK_EQ(f.absent, COUNT / 3);
        free(paths);
        free(b.data);
}

static void parts_are_read(void)
{
        unsigned char *data = malloc(LARGE);
        struct stat st;
        struct bytes b;
        struct call c;
        uint32_t handle = 99;

        bytes_init(&b, LARGE);
        CHECK_EQ(store("parts", &b), 0);
        CHECK_EQ(agent_open(agent, new_call(&c), "many", &handle, &st), -EINVAL);
        CHECK_EQ(agent_open(agent, new_call(&c), "parts", &handle, &st), 0);
        CHECK_EQ(st.st_size, LARGE);
        CHECK_EQ(agent_read(agent, new_call(&c), handle, data, LARGE, 0, &st), LARGE);
        CHECK_EQ(memcmp(data, b.data, LARGE), 0);
        CHECK_EQ(agent_read(agent, new_call(&c), handle, data, 100, LARGE - 10, NULL), 10);
        CHECK_EQ(memcmp(data, b.data + LARGE - 10, 10), 0);
        CHECK_EQ(agent_read(agent, new_call(&c), handle, data, 100, LARGE + 10, NULL), 0);
        agent_close(agent, handle);
        CHECK(agent_read(agent, new_call(&c), handle, data, 100, 0, NULL) < 0);
        free(data);
        free(b.data);
}

static void *stat_often(void *ctx)
{
        struct call c;
        struct stat st;

        (void)ctx;
        for (unsigned i = 0; i < 500; i++)
                CHECK_EQ(agent_stat(agent, new_call(&c), i % 2 ? "parts" : "many", &st), 0);
        return NULL;
}

static void *list_often(void *ctx)
{
        struct file_listing what = {.path = "many", .depth = 1};
        struct call c;

        (void)ctx;
        for (unsigned i = 0; i < 5; i++) {
                struct seen s = {.sink = {on_entry, on_listed}};

                CHECK_EQ(agent_list(agent, new_call(&c), &what, &s.sink), 0);
                CHECK(s.entries > 5000);
        }
        return NULL;
}

static void *store_often(void *name)
{
        struct bytes b;

        bytes_init(&b, LARGE);
        for (unsigned i = 0; i < 3; i++)
                CHECK_EQ(store(name, &b), 0);
        CHECK(is_content(name, &b));
        free(b.data);
        return NULL;
}

static void many_threads_share_it(void)
{
        static char one[] = "one", two[] = "two";
        pthread_t threads[6];

        CHECK_EQ(pthread_create(&threads[0], NULL, stat_often, NULL), 0);
        CHECK_EQ(pthread_create(&threads[1], NULL, list_often, NULL), 0);
        CHECK_EQ(pthread_create(&threads[2], NULL, store_often, one), 0);
        CHECK_EQ(pthread_create(&threads[3], NULL, store_often, two), 0);
        CHECK_EQ(pthread_create(&threads[4], NULL, stat_often, NULL), 0);
        CHECK_EQ(pthread_create(&threads[5], NULL, list_often, NULL), 0);
        for (unsigned i = 0; i < 6; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* ---- ends ---- */

static void a_program_that_is_none_of_ours_is_told_apart(void)
{
        static const char *const envp[] = {NULL};
        static const struct {
                const char *script, *sentence;
        } table[] = {
                {"exit 126", "it ended with code 126"},
                {"printf 'unable to find user no\\033such: \\377\\r\\nmore'; exit 126",
                 "unable to find user no\\x1bsuch: \\xff"},
                {"printf 'hello there, '; exec sleep 100", "hello there, "},
                {"head -c 100000 /dev/zero | tr '\\0' x", NULL},
                {"cat", NULL},
        };

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                const char *const argv[] = {"sh", "-c", table[i].script, NULL};
                struct stream *s = NULL;
                struct agent *a = NULL;
                struct call c;

                CHECK_EQ(agent_new(&a), 0);
                CHECK_EQ(child_open("/bin/sh", argv, envp, agent_events(a), new_call(&c), &s), 0);
                CHECK_EQ(agent_start(a, &c, s), -ENOEXEC);
                if (table[i].sentence)
                        CHECK_STR(c.sentence, table[i].sentence);
                CHECK(strlen(c.sentence) < 4 * 256 + 1);
                agent_unref(a);
        }
}

static void a_missing_directory_is_no_entry(void)
{
        struct agent *a = start("/no/such/directory");
        struct change x = {.kind = CHANGE_MKDIR, .path = "x"};
        struct stat st;
        struct call c;

        CHECK_EQ(agent_stat(a, new_call(&c), "", &st), -ENOENT);
        CHECK_EQ(agent_apply(a, new_call(&c), &x, 1), 0);
        CHECK_EQ(x.error, -ENOENT);
        agent_unref(a);
}

int main(int argc, char **argv)
{
        char base[] = "/tmp/sbxfs-agent-XXXXXX";

        if (argc < 2 || !mkdtemp(base))
                return 2;
        program = argv[1];
        (void)snprintf(dir, sizeof(dir), "%s", base);
        agent = start(dir);
        RUN(content_of_any_size_arrives);
        RUN(refused_content_is_taken_all_the_same);
        RUN(content_that_cannot_be_had_stores_nothing);
        RUN(a_batch_keeps_its_order_and_its_errors);
        RUN(a_tree_is_listed_whole);
        RUN(a_sink_that_has_enough_ends_it);
        RUN(many_files_are_fetched);
        RUN(parts_are_read);
        RUN(many_threads_share_it);
        agent_unref(agent);
        RUN(a_program_that_is_none_of_ours_is_told_apart);
        RUN(a_missing_directory_is_no_entry);
        CHECK_EQ(file_remove_tree(AT_FDCWD, dir), 0);
        return check_result();
}
