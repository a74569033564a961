/* SPDX-License-Identifier: Apache-2.0 */
/* Names and attributes of the cached volume, against a box that counts what it is asked. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/volume/cached.h"
#include "fs/volume/volume.h"
#include "tests/unit/check.h"
#include "tests/unit/volume/fake_box.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

struct fixture {
        struct fake_box box; /* first */
        char dir[64]; /* the volume's own */
        struct volume *v;
        const struct vol_ops *ops;
        struct call call;
        struct vol_op op;
        atomic_bool is_quiet;
        atomic_uint node_events, page_events, entry_events;
};

static void on_inval_node(void *ctx, uint64_t node, bool attributes_only)
{
        struct fixture *f = ctx;

        (void)node;
        atomic_fetch_add(attributes_only ? &f->node_events : &f->page_events, 1);
}

static void on_inval_entry(void *ctx, uint64_t parent, const char *name)
{
        struct fixture *f = ctx;

        (void)parent;
        (void)name;
        atomic_fetch_add(&f->entry_events, 1);
}

static bool on_is_quiet(void *ctx)
{
        struct fixture *f = ctx;

        return atomic_load(&f->is_quiet);
}

static bool fixture_init_ttl(struct fixture *f, uint64_t ttl_ns)
{
        struct volume_events events = {on_inval_node, on_inval_entry, on_is_quiet, f};
        struct volume_cached_config config = {.base = {.attr_ttl_ns = ttl_ns, .is_sync = true},
                                              .owner = "me"};

        memset(f, 0, sizeof(*f));
        (void)umask(0);
        if (!CHECK(fake_box_init(&f->box)))
                return false;
        (void)snprintf(f->dir, sizeof(f->dir), "/tmp/sbxfs-cached.XXXXXX");
        if (!CHECK(mkdtemp(f->dir)))
                return false;
        config.dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        config.box = fake_box_volume(&f->box);
        call_init(&f->call, clock_after(60 * NS_PER_S));
        f->op = (struct vol_op){.call = &f->call, .umask = 022, .tid = getpid(), .may_wait = true};
        if (!CHECK_EQ(volume_cached_new(&config, &events, &f->v), 0))
                return false;
        f->ops = f->v->ops;
        return true;
}

static bool fixture_init(struct fixture *f)
{
        return fixture_init_ttl(f, NS_PER_S);
}

static void fixture_done(struct fixture *f)
{
        f->ops->free(f->v);
        CHECK_EQ(atomic_load(&f->box.entered), 0);
        fake_box_done(&f->box);
        (void)file_remove_tree(AT_FDCWD, f->dir);
}

/* ---- the sandbox's side ---- */

static const char *real(const struct fixture *f, const char *name)
{
        static _Thread_local char text[4][512];
        static _Thread_local unsigned turn;
        char *to = text[turn++ % 4];

        (void)snprintf(to, sizeof(text[0]), "%s/%s", f->box.path, name);
        return to;
}

static void put_real(const struct fixture *f, const char *name, const char *content)
{
        int fd = open(real(f, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

        CHECK(fd >= 0);
        CHECK_EQ(write(fd, content, strlen(content)), (ssize_t)strlen(content));
        CHECK_EQ(close(fd), 0);
}

static void mkdir_real(const struct fixture *f, const char *name)
{
        CHECK_EQ(mkdir(real(f, name), 0755), 0);
}

/* `dirs` directories d0, d1, ... below `top` ("" or "x/"), each with `files` files. */
static void plant(const struct fixture *f, const char *top, unsigned dirs, unsigned files)
{
        char name[128];

        for (unsigned i = 0; i < dirs; i++) {
                (void)snprintf(name, sizeof(name), "%sd%u", top, i);
                mkdir_real(f, name);
                for (unsigned k = 0; k < files; k++) {
                        (void)snprintf(name, sizeof(name), "%sd%u/f%u", top, i, k);
                        put_real(f, name, "x");
                }
        }
}

/* ---- the kernel's side ---- */

static uint64_t look(struct fixture *f, uint64_t parent, const char *name)
{
        struct vol_entry e;

        return f->ops->lookup(f->v, &f->op, parent, name, &e) == 0 ? e.node : 0;
}

static uint64_t walk(struct fixture *f, const char *path)
{
        char copy[512], *save = NULL;
        uint64_t node = VOLUME_ROOT;

        (void)snprintf(copy, sizeof(copy), "%s", path);
        for (char *word = strtok_r(copy, "/", &save); word && node;
             word = strtok_r(NULL, "/", &save))
                node = look(f, node, word);
        return node;
}

/* A directory as it was read; at most `max` entries a call, as the kernel's buffer has it. */
struct seen {
        struct vol_dir_sink head; /* first */
        unsigned max, in_call;
        unsigned count, with_attrs, dirs;
        uint64_t next;
        char last[256];
        uint64_t nodes[64]; /* of directories */
        unsigned node_count;
        uint64_t min_ttl_ns;
};

static bool on_add(struct vol_dir_sink *to, const char *name, const struct vol_entry *e,
                   uint64_t next)
{
        struct seen *s = (struct seen *)(void *)to; /* its head */

        if (s->in_call == s->max)
                return false;
        s->in_call++;
        s->next = next;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return true;
        s->count++;
        s->with_attrs += e->node != 0;
        (void)snprintf(s->last, sizeof(s->last), "%s", name);
        if (S_ISDIR(e->st.st_mode)) {
                s->dirs++;
                if (e->node && s->node_count < 64)
                        s->nodes[s->node_count++] = e->node;
        }
        if (e->node && e->ttl_ns < s->min_ttl_ns)
                s->min_ttl_ns = e->ttl_ns;
        return true;
}

static int read_all(struct fixture *f, struct vol_dir *d, struct seen *s)
{
        int r;

        s->next = 0;
        s->count = s->with_attrs = s->dirs = s->node_count = 0;
        s->min_ttl_ns = UINT64_MAX;
        do {
                s->in_call = 0;
                r = f->ops->readdir(f->v, &f->op, d, s->next, true, &s->head);
        } while (r == 0 && s->in_call > 0);
        return r;
}

static int read_dir(struct fixture *f, uint64_t node, struct seen *s)
{
        struct vol_dir *d = NULL;
        int r;

        *s = (struct seen){.head = {on_add}, .max = 100};
        r = f->ops->opendir(f->v, &f->op, node, &d);
        if (r < 0)
                return r;
        r = read_all(f, d, s);
        f->ops->releasedir(f->v, d);
        return r;
}

/* find(1): reads a directory, then the directories in it. Counts entries. */
static unsigned find(struct fixture *f, uint64_t node)
{
        struct seen s;
        unsigned count;

        CHECK_EQ(read_dir(f, node, &s), 0);
        CHECK_EQ(s.with_attrs, s.count);
        count = s.count;
        for (unsigned i = 0; i < s.node_count; i++)
                count += find(f, s.nodes[i]);
        return count;
}

static off_t size_at(struct fixture *f, uint64_t node)
{
        struct vol_entry e;

        return f->ops->getattr(f->v, &f->op, node, NULL, &e) == 0 ? e.st.st_size : -1;
}

static void sleep_ms(unsigned ms)
{
        const struct timespec span = clock_timespec(ms * NS_PER_MS);

        (void)nanosleep(&span, NULL); /* cut short: no matter */
}

static unsigned lists(struct fixture *f)
{
        return atomic_load(&f->box.calls[FAKE_LIST]);
}

static unsigned stats(struct fixture *f)
{
        return atomic_load(&f->box.calls[FAKE_STAT]);
}

/* ---- how much is asked ---- */

static void a_walk_costs_one_or_two_listings(void)
{
        struct fixture f;
        uint64_t top;

        if (!fixture_init(&f))
                return;
        mkdir_real(&f, "p");
        plant(&f, "p/", 20, 10);
        top = look(&f, VOLUME_ROOT, "p");
        CHECK_EQ(find(&f, top), 220);
        CHECK_EQ(lists(&f), 1);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        /* Again at once: nothing. */
        fake_box_zero(&f.box);
        CHECK_EQ(find(&f, top), 220);
        CHECK_EQ(fake_box_calls(&f.box), 0);
        /* When it is old: the same tree in one call. */
        sleep_ms(1100);
        CHECK_EQ(find(&f, top), 220);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        CHECK_EQ(lists(&f), 1);
        fixture_done(&f);
        /* From fs/ itself. */
        if (!fixture_init(&f))
                return;
        plant(&f, "", 20, 10);
        CHECK_EQ(find(&f, VOLUME_ROOT), 220);
        CHECK_EQ(fake_box_calls(&f.box), 2);
        fixture_done(&f);
}

static void lookups_in_a_listed_directory_are_free(void)
{
        struct fixture f;
        struct vol_entry e;
        char name[32];

        if (!fixture_init(&f))
                return;
        plant(&f, "", 1, 3);
        CHECK(walk(&f, "d0/f0") != 0);
        CHECK_EQ(lists(&f), 1);
        fake_box_zero(&f.box);
        for (unsigned i = 0; i < 100; i++) {
                (void)snprintf(name, sizeof(name), "none%u", i);
                CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, name, &e), 0);
                CHECK_EQ(e.node, 0);
                CHECK(e.ttl_ns > 0 && e.ttl_ns <= NS_PER_S);
        }
        CHECK(walk(&f, "d0/f1") != 0);
        CHECK_EQ(walk(&f, "d0/none"), 0);
        CHECK_EQ(fake_box_calls(&f.box), 0);
        /* Nothing that isn't in memory is asked for by a thread that may not wait. */
        f.op.may_wait = false;
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "none", &e), 0);
        sleep_ms(1100);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "none", &e), -EINPROGRESS);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "d0", &e), -EINPROGRESS);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "new", 0755, &e), -EINPROGRESS);
        CHECK_EQ(fake_box_calls(&f.box), 0);
        fixture_done(&f);
}

static void a_second_directory_brings_the_tree_of_their_parent(void)
{
        struct fixture f;

        if (!fixture_init(&f))
                return;
        plant(&f, "", 30, 5);
        CHECK(walk(&f, "d0/f0") != 0); /* the names of fs/, and d0 */
        CHECK_EQ(fake_box_calls(&f.box), 1);
        CHECK_EQ(atomic_load(&f.box.listed_entries), 35);
        CHECK(walk(&f, "d1/f0") != 0); /* the tree of fs/ */
        CHECK_EQ(fake_box_calls(&f.box), 2);
        for (unsigned i = 2; i < 30; i++) {
                char path[64];

                (void)snprintf(path, sizeof(path), "d%u/f3", i);
                CHECK(walk(&f, path) != 0);
        }
        CHECK_EQ(fake_box_calls(&f.box), 2);
        fixture_done(&f);
}

static void what_is_below_the_first_look_comes_with_it(void)
{
        struct fixture f;

        if (!fixture_init(&f))
                return;
        mkdir_real(&f, "a");
        mkdir_real(&f, "a/b");
        plant(&f, "a/b/", 3, 3);
        mkdir_real(&f, "z");
        plant(&f, "z/", 3, 3);
        CHECK(walk(&f, "a/b/d1/f2") != 0);
        CHECK_EQ(walk(&f, "a/b/none/f2"), 0);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        CHECK_EQ(atomic_load(&f.box.listed_entries), 2 + 1 + 3 + 9);
        /* When that is old: the same again. */
        sleep_ms(1100);
        fake_box_zero(&f.box);
        CHECK(walk(&f, "a/b/d2/f1") != 0);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        CHECK_EQ(atomic_load(&f.box.listed_entries), 2 + 1 + 3 + 9);
        fixture_done(&f);
}

static void a_lone_file_in_a_large_directory_is_asked_for_alone(void)
{
        struct fixture f;
        uint64_t node;

        if (!fixture_init(&f))
                return;
        plant(&f, "", 1, 500);
        node = walk(&f, "d0/f7");
        CHECK_EQ(lists(&f), 1);
        for (int i = 0; i < 2; i++) {
                sleep_ms(2100); /* beyond what counts as the same visit */
                fake_box_zero(&f.box);
                put_real(&f, "d0/f7", "longer");
                CHECK_EQ(size_at(&f, node), 6);
                CHECK_EQ(lists(&f), 0);
                CHECK_EQ(stats(&f), 1);
        }
        fixture_done(&f);
}

struct looker {
        struct fixture *f;
        uint64_t node;
        pthread_t thread;
};

static void *look_from_thread(void *arg)
{
        struct looker *l = arg;
        struct vol_entry e;
        struct call call;
        struct vol_op op = {.call = &call, .umask = 022, .may_wait = true};

        call_init(&call, clock_after(20 * NS_PER_S));
        if (l->f->ops->lookup(l->f->v, &op, VOLUME_ROOT, "d0", &e) == 0)
                l->node = e.node;
        return NULL;
}

static void many_at_once_ask_once(void)
{
        struct fixture f;
        struct looker all[16];

        if (!fixture_init(&f))
                return;
        plant(&f, "", 2, 2);
        atomic_store(&f.box.delay_ms[FAKE_LIST], 100);
        for (unsigned i = 0; i < 16; i++) {
                all[i] = (struct looker){.f = &f};
                CHECK_EQ(pthread_create(&all[i].thread, NULL, look_from_thread, &all[i]), 0);
        }
        for (unsigned i = 0; i < 16; i++) {
                CHECK_EQ(pthread_join(all[i].thread, NULL), 0);
                CHECK(all[i].node != 0);
        }
        CHECK_EQ(fake_box_calls(&f.box), 1);
        fixture_done(&f);
}

static void a_huge_directory_is_listed_when_it_is_read_only(void)
{
        struct fixture f;
        struct seen s;
        char name[64];
        uint64_t dir, begin_ns;

        if (!fixture_init(&f))
                return;
        mkdir_real(&f, "big");
        for (unsigned i = 0; i < 8000; i++) {
                (void)snprintf(name, sizeof(name), "big/file-%u", i);
                CHECK_EQ(mknodat(f.box.dir, name, S_IFREG | 0644, 0), 0);
        }
        CHECK(walk(&f, "big/file-7000") != 0);
        CHECK(atomic_load(&f.box.listed_entries) < 6000);
        CHECK_EQ(walk(&f, "big/none"), 0);
        CHECK(atomic_load(&f.box.listed_entries) < 6000);
        dir = look(&f, VOLUME_ROOT, "big");
        begin_ns = clock_mono_ns();
        CHECK_EQ(read_dir(&f, dir, &s), 0);
        CHECK_EQ(s.count, 8000);
        CHECK(clock_mono_ns() - begin_ns < 10 * NS_PER_S);
        CHECK_EQ(walk(&f, "big/none"), 0);
        fixture_done(&f);
}

/* ---- how old an answer may be ---- */

static void what_is_older_than_the_ttl_is_asked_for_anew(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t node;

        if (!fixture_init_ttl(&f, 200 * NS_PER_MS))
                return;
        put_real(&f, "a", "1");
        node = look(&f, VOLUME_ROOT, "a");
        put_real(&f, "a", "12");
        put_real(&f, "b", "");
        sleep_ms(100);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), 0);
        CHECK_EQ(e.st.st_size, 1);
        CHECK(e.ttl_ns <= 100 * NS_PER_MS); /* what is left of it */
        sleep_ms(150);
        CHECK_EQ(size_at(&f, node), 2);
        CHECK(look(&f, VOLUME_ROOT, "b") != 0);
        /* A slow answer counts from when it was asked for, but is good for who asked. */
        sleep_ms(250);
        atomic_store(&f.box.delay_after_ms[FAKE_LIST], 300);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), 0);
        CHECK_EQ(e.ttl_ns, 0);
        fixture_done(&f);
}

static void a_commands_end_makes_all_old(void)
{
        struct fixture f;
        uint64_t node, dir;
        struct seen s;

        if (!fixture_init(&f))
                return;
        plant(&f, "", 2, 2);
        node = walk(&f, "d0/f0");
        dir = look(&f, VOLUME_ROOT, "d0");
        CHECK_EQ(read_dir(&f, dir, &s), 0);
        CHECK_EQ(look(&f, dir, "new"), 0);
        put_real(&f, "d0/f0", "longer");
        put_real(&f, "d0/new", "");
        CHECK_EQ(unlink(real(&f, "d0/f1")), 0);
        f.ops->exec_ended(f.v);
        CHECK(atomic_load(&f.node_events) > 0);
        CHECK(atomic_load(&f.entry_events) > 0);
        fake_box_zero(&f.box);
        CHECK_EQ(size_at(&f, node), 6);
        CHECK(look(&f, dir, "new") != 0);
        CHECK_EQ(look(&f, dir, "f1"), 0);
        CHECK(fake_box_calls(&f.box) <= 2);
        fixture_done(&f);
}

static void what_is_quiet_stays_known(void)
{
        struct fixture f;

        if (!fixture_init_ttl(&f, 50 * NS_PER_MS))
                return;
        put_real(&f, "a", "1");
        atomic_store(&f.is_quiet, true);
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        sleep_ms(150);
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        atomic_store(&f.is_quiet, false);
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        CHECK_EQ(fake_box_calls(&f.box), 2);
        fixture_done(&f);
}

static void nothing_old_is_served_when_the_host_is_away(void)
{
        struct fixture f;
        struct vol_entry e;
        struct seen s;
        uint64_t begin_ns;

        if (!fixture_init_ttl(&f, 100 * NS_PER_MS))
                return;
        put_real(&f, "a", "1");
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        sleep_ms(150);
        atomic_store(&f.box.enter_error, -EHOSTUNREACH);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), -EHOSTUNREACH);
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), -EHOSTUNREACH);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d", 0755, &e), -EHOSTUNREACH);
        atomic_store(&f.box.enter_error, 0);
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        /* A hanging one ends with the call's deadline. */
        sleep_ms(150);
        atomic_store(&f.box.hangs[FAKE_LIST], true);
        begin_ns = clock_mono_ns();
        call_init(&f.call, clock_after(200 * NS_PER_MS));
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), -ETIMEDOUT);
        CHECK(clock_mono_ns() - begin_ns < NS_PER_S);
        atomic_store(&f.box.hangs[FAKE_LIST], false);
        call_init(&f.call, clock_after(20 * NS_PER_S));
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        f.ops->gone(f.v);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), -ENODEV);
        fixture_done(&f);
}

/* ---- changes ---- */

static void own_changes_are_known_at_once(void)
{
        struct fixture f;
        struct vol_entry e;
        struct stat st;
        struct seen s;
        uint64_t dir, file;

        if (!fixture_init(&f))
                return;
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), 0);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d", 0777, &e), 0);
        dir = e.node;
        CHECK_EQ(e.st.st_mode, S_IFDIR | 0755);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, dir, "x", S_IFREG | 0640, &e), 0);
        file = e.node;
        CHECK_EQ(e.st.st_mode, S_IFREG | 0640);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, dir, "x", S_IFREG | 0640, &e), -EEXIST);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, dir, "p", S_IFIFO | 0640, &e), -EPERM);
        CHECK_EQ(f.ops->symlink(f.v, &f.op, dir, "l", "x", &e), 0);
        CHECK_EQ(e.st.st_size, 1);
        fake_box_zero(&f.box);
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), 0);
        CHECK_EQ(s.count, 1);
        CHECK_EQ(look(&f, dir, "none"), 0);
        CHECK_EQ(look(&f, dir, "l") != 0, true);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), 0);
        CHECK(fake_box_calls(&f.box) <= 1); /* the EEXIST was a surprise */
        st = (struct stat){.st_mode = 0755, .st_mtim = {.tv_sec = 1234, .tv_nsec = 5}};
        CHECK_EQ(f.ops->setattr(f.v, &f.op, file, NULL, VOL_SET_MODE | VOL_SET_MTIME, &st, &e), 0);
        CHECK_EQ(e.st.st_mode, S_IFREG | 0755);
        CHECK_EQ(e.st.st_mtim.tv_sec, 1234);
        CHECK_EQ(stat(real(&f, "d/x"), &st), 0);
        CHECK_EQ(st.st_mode, S_IFREG | 0755);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d"), -ENOTEMPTY);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, dir, "x"), 0);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, dir, "l"), 0);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d"), 0);
        fake_box_zero(&f.box);
        CHECK_EQ(look(&f, VOLUME_ROOT, "d"), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), -ESTALE);
        fixture_done(&f);
}

/* While a listing is on its way back, the volume itself changes what it was about. */
/* The one directory that is answered without asking, however old what is known of it is. */
static void fs_itself_answers_at_once_with_our_changes(void)
{
        struct vol_entry before, e;
        struct fixture f;

        if (!fixture_init(&f))
                return;
        put_real(&f, "file", "x");
        f.op.may_wait = false;
        CHECK_EQ(f.ops->getattr(f.v, &f.op, VOLUME_ROOT, NULL, &e), -EINPROGRESS);
        f.op.may_wait = true;
        CHECK_EQ(f.ops->getattr(f.v, &f.op, VOLUME_ROOT, NULL, &before), 0);
        CHECK(look(&f, VOLUME_ROOT, "file") != 0);
        sleep_ms(1100);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, VOLUME_ROOT, "file"), 0);
        fake_box_zero(&f.box);
        f.op.may_wait = false;
        CHECK_EQ(f.ops->getattr(f.v, &f.op, VOLUME_ROOT, NULL, &e), 0);
        CHECK_EQ(e.ttl_ns, 0);
        CHECK(clock_from_timespec(e.st.st_mtim) > clock_from_timespec(before.st.st_mtim));
        CHECK_EQ(fake_box_calls(&f.box), 0);
        fixture_done(&f);
}

static void change_behind_a_listing(struct fake_box *box, enum fake_call call, const char *path,
                                    bool is_after)
{
        struct fixture *f = (struct fixture *)(void *)box; /* its head */
        struct cached *c = cached_of(f->v);
        uint64_t ttl_ns = c->config.attr_ttl_ns;
        struct vol_op op = f->op;
        struct vol_entry e;
        struct call mine;

        (void)path;
        if (call != FAKE_LIST || !is_after)
                return;
        box->hook = NULL;
        c->config.attr_ttl_ns = NS_PER_S; /* nothing is asked for: we are within the asking */
        call_init(&mine, clock_after(10 * NS_PER_S));
        op.call = &mine;
        CHECK_EQ(f->ops->unlink(f->v, &op, VOLUME_ROOT, "gone"), 0);
        CHECK_EQ(f->ops->mkdir(f->v, &op, VOLUME_ROOT, "new", 0755, &e), 0);
        CHECK_EQ(f->ops->rename(f->v, &op, VOLUME_ROOT, "old", VOLUME_ROOT, "moved", 0), 0);
        c->config.attr_ttl_ns = ttl_ns;
}

/* The change comes in between the work of the listing and its entries. */
static void change_before_entries(struct fake_box *box, const char *path, struct file_list_sink *to)
{
        (void)path;
        (void)to;
        change_behind_a_listing(box, FAKE_LIST, path, true);
}

static void a_listing_does_not_undo_a_change_that_overtook_it(void)
{
        struct fixture f;
        uint64_t node;
        char names[3][16] = {"gone", "old", "moved"};

        if (!fixture_init_ttl(&f, 100 * NS_PER_MS))
                return;
        put_real(&f, "gone", "x");
        put_real(&f, "old", "xx");
        for (int i = 0; i < 3; i++)
                (void)look(&f, VOLUME_ROOT, names[i]);
        sleep_ms(150);
        f.box.hook = change_behind_a_listing;
        (void)look(&f, VOLUME_ROOT, "whatever");
        CHECK(f.box.hook == NULL);
        f.op.may_wait = false; /* from memory, as the listing has left it */
        CHECK_EQ(look(&f, VOLUME_ROOT, "gone"), 0);
        CHECK_EQ(look(&f, VOLUME_ROOT, "old"), 0);
        CHECK(look(&f, VOLUME_ROOT, "new") != 0);
        node = look(&f, VOLUME_ROOT, "moved");
        CHECK(node != 0);
        CHECK_EQ(size_at(&f, node), 2);
        f.op.may_wait = true;
        fixture_done(&f);
        /* The other way round: it was sent before, and saw it. */
        if (!fixture_init_ttl(&f, 100 * NS_PER_MS))
                return;
        put_real(&f, "gone", "x");
        put_real(&f, "old", "xx");
        (void)look(&f, VOLUME_ROOT, "old");
        sleep_ms(150);
        f.box.add = change_before_entries;
        (void)look(&f, VOLUME_ROOT, "whatever");
        f.op.may_wait = false;
        CHECK_EQ(look(&f, VOLUME_ROOT, "gone"), 0);
        CHECK(look(&f, VOLUME_ROOT, "new") != 0);
        f.op.may_wait = true;
        f.box.add = NULL;
        CHECK(look(&f, VOLUME_ROOT, "moved") != 0);
        fixture_done(&f);
}

static void rename_takes_the_subtree_along(void)
{
        struct fixture f;
        struct vol_entry e;
        struct seen s;
        struct vol_dir *d;
        uint64_t a, x, sub;

        if (!fixture_init(&f))
                return;
        mkdir_real(&f, "a");
        plant(&f, "a/", 1, 3);
        mkdir_real(&f, "b");
        a = look(&f, VOLUME_ROOT, "a");
        sub = look(&f, a, "d0");
        x = look(&f, sub, "f0");
        CHECK_EQ(f.ops->opendir(f.v, &f.op, sub, &d), 0);
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "a", look(&f, VOLUME_ROOT, "b"), "c", 0),
                 0);
        fake_box_zero(&f.box);
        CHECK_EQ(look(&f, VOLUME_ROOT, "a"), 0);
        CHECK_EQ(walk(&f, "b/c/d0/f0"), x);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, x, NULL, &e), 0);
        CHECK_EQ(e.st.st_size, 1);
        s = (struct seen){.head = {on_add}, .max = 2};
        CHECK_EQ(read_all(&f, d, &s), 0);
        CHECK_EQ(s.count, 3);
        f.ops->releasedir(f.v, d);
        CHECK(lists(&f) <= 1); /* b was not known */
        /* Onto something. */
        CHECK_EQ(f.ops->rename(f.v, &f.op, sub, "f0", sub, "f1", RENAME_NOREPLACE), -EEXIST);
        CHECK_EQ(f.ops->rename(f.v, &f.op, sub, "f0", sub, "f1", RENAME_EXCHANGE), -EINVAL);
        CHECK_EQ(f.ops->rename(f.v, &f.op, sub, "f0", sub, "f1", 0), 0);
        CHECK_EQ(look(&f, sub, "f1"), x);
        CHECK_EQ(look(&f, sub, "f0"), 0);
        CHECK_EQ(access(real(&f, "b/c/d0/f0"), F_OK), -1);
        fixture_done(&f);
}

static void a_lost_answer_is_looked_into(void)
{
        struct fixture f;
        struct vol_entry e;

        if (!fixture_init(&f))
                return;
        CHECK_EQ(look(&f, VOLUME_ROOT, "d"), 0);
        atomic_store(&f.box.is_lost, true);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d", 0755, &e), -EHOSTUNREACH);
        atomic_store(&f.box.is_lost, false);
        CHECK(look(&f, VOLUME_ROOT, "d") != 0); /* it was made */
        fixture_done(&f);
}

static void changes_inside_show_as_other_files(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t file, dir, again;

        if (!fixture_init_ttl(&f, 50 * NS_PER_MS))
                return;
        put_real(&f, "x", "old");
        mkdir_real(&f, "d");
        file = look(&f, VOLUME_ROOT, "x");
        dir = look(&f, VOLUME_ROOT, "d");
        put_real(&f, "new", "newer");
        CHECK_EQ(rename(real(&f, "new"), real(&f, "x")), 0);
        CHECK_EQ(rename(real(&f, "d"), real(&f, "d2")), 0);
        CHECK_EQ(mkdir(real(&f, "d"), 0700), 0);
        sleep_ms(100);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), -ESTALE);
        again = look(&f, VOLUME_ROOT, "x");
        CHECK(again != 0 && again != file);
        CHECK_EQ(size_at(&f, again), 5);
        CHECK_EQ(look(&f, VOLUME_ROOT, "d"), dir); /* the path's */
        CHECK_EQ(rmdir(real(&f, "d")), 0);
        sleep_ms(100);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), -ENOENT);
        fixture_done(&f);
}

static void links_answer_what_stays_inside(void)
{
        struct fixture f;
        struct vol_entry e;
        char target[4096];
        uint64_t dir;

        for (int turn = 0; turn < 2; turn++) {
                if (!fixture_init(&f))
                        return;
                f.box.has_no_targets = turn == 1;
                mkdir_real(&f, "d");
                CHECK_EQ(symlink("/etc/passwd", real(&f, "d/out")), 0);
                CHECK_EQ(symlink("/workspace/x", real(&f, "d/in")), 0);
                CHECK_EQ(symlink("../../../x", real(&f, "d/up")), 0);
                dir = look(&f, VOLUME_ROOT, "d");
                CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "out", &e), 0);
                CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
                CHECK_STR(target, "../etc/passwd");
                CHECK_EQ(e.st.st_size, strlen(target));
                CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "in", &e), 0);
                CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
                CHECK_STR(target, "../x");
                CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "up", &e), 0);
                CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
                CHECK_STR(target, "../x");
                /* The directory goes to another depth: so does the answer. */
                CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "e", 0755, &e), 0);
                CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "d", e.node, "d", 0), 0);
                CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "out", &e), 0);
                CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
                CHECK_STR(target, "../../etc/passwd");
                fixture_done(&f);
        }
}

static void hard_links_share_a_node_where_inodes_are_real(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t file;

        if (!fixture_init(&f))
                return;
        put_real(&f, "a", "x");
        file = look(&f, VOLUME_ROOT, "a");
        CHECK_EQ(f.ops->link(f.v, &f.op, file, VOLUME_ROOT, "b", &e), 0);
        CHECK_EQ(e.node, file);
        CHECK_EQ(e.st.st_nlink, 2);
        CHECK_EQ(e.ttl_ns, 0);
        CHECK_EQ(look(&f, VOLUME_ROOT, "b"), file);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, VOLUME_ROOT, "a"), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), 0);
        CHECK_EQ(e.st.st_nlink, 1);
        f.box.has_no_links = true;
        CHECK_EQ(f.ops->link(f.v, &f.op, file, VOLUME_ROOT, "c", &e), -EPERM);
        fixture_done(&f);
        if (!fixture_init(&f))
                return;
        f.box.has_no_ino = true;
        put_real(&f, "a", "x");
        file = look(&f, VOLUME_ROOT, "a");
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), 0);
        CHECK(e.st.st_ino != 0 && e.st.st_nlink == 1 && e.st.st_blocks == 1);
        CHECK(e.st.st_ctim.tv_sec != 0);
        fixture_done(&f);
}

static void what_is_only_here_is_shown_though_its_directory_is_not(void)
{
        struct fixture f;
        struct vol_opened o;
        struct vol_entry e;
        struct seen s;
        uint64_t dir;

        if (!fixture_init_ttl(&f, 50 * NS_PER_MS))
                return;
        mkdir_real(&f, "d");
        dir = look(&f, VOLUME_ROOT, "d");
        CHECK_EQ(f.ops->create(f.v, &f.op, dir, "x", 0644, O_RDWR | O_CREAT | O_EXCL, &e, &o), 0);
        CHECK_EQ(f.ops->write(f.v, &f.op, o.file, "abc", 3, 0), 3);
        sleep_ms(100);
        atomic_store(&f.box.enter_error, -EHOSTUNREACH);
        CHECK_EQ(walk(&f, "d"), dir);
        CHECK_EQ(size_at(&f, walk(&f, "d/x")), 3);
        CHECK_EQ(read_dir(&f, dir, &s), 0);
        CHECK_EQ(s.count, 1);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "y", &e), -EHOSTUNREACH);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d"), -ENOTEMPTY);
        atomic_store(&f.box.enter_error, 0);
        CHECK_EQ(file_remove_tree(f.box.dir, "d"), 0);
        CHECK_EQ(size_at(&f, walk(&f, "d/x")), 3);
        CHECK_EQ(read_dir(&f, dir, &s), 0);
        CHECK_EQ(s.count, 1);
        f.ops->release(f.v, o.file);
        fixture_done(&f);
}

/* ---- all at once ---- */

struct stressor {
        struct fixture *f;
        unsigned seed;
        pthread_t thread;
};

static unsigned roll(unsigned *seed, unsigned sides)
{
        *seed = *seed * 1103515245 + 12345;
        return (*seed >> 16) % sides;
}

/* Any errno will do: what counts is that nothing breaks, hangs or leaks. */
static void one_step(struct fixture *f, struct vol_op *op, unsigned *seed)
{
        static const char *const names[] = {"a", "b", "c", "d"};
        const char *name = names[roll(seed, 4)], *other = names[roll(seed, 4)];
        struct vol_entry e = {.node = 0}, to = {.node = 0};
        struct seen s = {.head = {on_add}, .max = 3};
        struct vol_opened o;
        struct vol_dir *d;
        uint64_t dir = VOLUME_ROOT, held[2] = {0, 0};

        if (roll(seed, 2) == 0 && f->ops->lookup(f->v, op, VOLUME_ROOT, other, &e) == 0 &&
            e.node != 0) {
                held[0] = e.node;
                if (S_ISDIR(e.st.st_mode))
                        dir = e.node;
        }
        if (f->ops->lookup(f->v, op, dir, name, &to) == 0)
                held[1] = to.node;
        switch (roll(seed, 10)) {
        case 0:
                if (f->ops->mkdir(f->v, op, dir, name, 0755, &e) == 0)
                        f->ops->forget(f->v, e.node, 1);
                break;
        case 1: (void)f->ops->rmdir(f->v, op, dir, name); break;
        case 2: (void)f->ops->unlink(f->v, op, dir, name); break;
        case 3: (void)f->ops->rename(f->v, op, dir, name, VOLUME_ROOT, other, 0); break;
        case 4:
                if (f->ops->create(f->v, op, dir, name, 0644, O_RDWR | O_CREAT, &e, &o) == 0) {
                        (void)f->ops->write(f->v, op, o.file, name, 1, roll(seed, 100));
                        (void)f->ops->flush(f->v, op, o.file);
                        f->ops->release(f->v, o.file);
                        f->ops->forget(f->v, e.node, 1);
                }
                break;
        case 5:
                if (f->ops->symlink(f->v, op, dir, name, "../x", &e) == 0)
                        f->ops->forget(f->v, e.node, 1);
                break;
        case 6:
                if (to.node && S_ISREG(to.st.st_mode) &&
                    f->ops->link(f->v, op, to.node, VOLUME_ROOT, other, &e) == 0)
                        f->ops->forget(f->v, e.node, 1);
                break;
        case 7:
                if (f->ops->opendir(f->v, op, dir, &d) == 0) {
                        (void)f->ops->readdir(f->v, op, d, 0, false, &s.head);
                        s.in_call = 0;
                        (void)f->ops->readdir(f->v, op, d, 2, false, &s.head);
                        f->ops->releasedir(f->v, d);
                }
                break;
        case 8:
                if (to.node)
                        (void)f->ops->getattr(f->v, op, to.node, NULL, &e);
                break;
        default:
                (void)unlinkat(f->box.dir, name, 0);
                (void)renameat(f->box.dir, other, f->box.dir, name);
                if (roll(seed, 10) == 0)
                        f->ops->exec_ended(f->v);
                break;
        }
        for (int i = 0; i < 2; i++) {
                if (held[i])
                        f->ops->forget(f->v, held[i], 1);
        }
}

static void *stress(void *arg)
{
        struct stressor *x = arg;

        for (int i = 0; i < 400; i++) {
                struct call call;
                struct vol_op op = {.call = &call, .umask = 022, .may_wait = true};

                call_init(&call, clock_after(20 * NS_PER_S));
                one_step(x->f, &op, &x->seed);
        }
        return NULL;
}

static void anything_may_happen_at_once(void)
{
        struct fixture f;
        struct stressor all[6];

        if (!fixture_init_ttl(&f, 5 * NS_PER_MS))
                return;
        for (unsigned i = 0; i < 6; i++) {
                all[i] = (struct stressor){.f = &f, .seed = i * 7919 + 1};
                CHECK_EQ(pthread_create(&all[i].thread, NULL, stress, &all[i]), 0);
        }
        for (unsigned i = 0; i < 6; i++)
                CHECK_EQ(pthread_join(all[i].thread, NULL), 0);
        CHECK_EQ(f.ops->sync(f.v, &f.op) <= 0, true);
        fixture_done(&f);
}

/* ---- directories ---- */

static void an_open_directory_keeps_its_places(void)
{
        struct fixture f;
        struct seen s = {.head = {on_add}, .max = 2};
        struct vol_dir *d;
        uint64_t dir;

        if (!fixture_init_ttl(&f, 50 * NS_PER_MS))
                return;
        plant(&f, "", 1, 5);
        dir = look(&f, VOLUME_ROOT, "d0");
        CHECK_EQ(f.ops->opendir(f.v, &f.op, dir, &d), 0);
        CHECK_EQ(read_all(&f, d, &s), 0);
        CHECK_EQ(s.count, 5);
        put_real(&f, "d0/late", "");
        sleep_ms(100);
        /* Any offset is safe; the rest is what it was. */
        s.in_call = 0;
        CHECK_EQ(f.ops->readdir(f.v, &f.op, d, 6, false, &s.head), 0);
        CHECK_EQ(s.in_call, 1);
        s.in_call = 0;
        CHECK_EQ(f.ops->readdir(f.v, &f.op, d, UINT64_MAX, true, &s.head), 0);
        CHECK_EQ(s.in_call, 0);
        CHECK_EQ(read_all(&f, d, &s), 0); /* rewinddir */
        CHECK_EQ(s.count, 6);
        f.ops->releasedir(f.v, d);
        /* Removed while open: empty, and still has attributes. */
        CHECK_EQ(f.ops->opendir(f.v, &f.op, dir, &d), 0);
        CHECK_EQ(file_remove_tree(f.box.dir, "d0"), 0);
        sleep_ms(100);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d0", 0755, &(struct vol_entry){.node = 0}),
                 0);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d0"), 0);
        CHECK_EQ(read_all(&f, d, &s), 0);
        CHECK_EQ(s.count, 0);
        CHECK(size_at(&f, dir) >= 0);
        f.ops->releasedir(f.v, d);
        fixture_done(&f);
}

static void add_hostile(struct fake_box *box, const char *path, struct file_list_sink *to)
{
        struct stat st = {.st_mode = S_IFREG | 0644}, dir = {.st_mode = S_IFDIR | 0755};
        char *deep = malloc(40000);

        (void)box;
        (void)path;
        CHECK_EQ(to->entry(to, "..", &dir, NULL), 0);
        CHECK_EQ(to->entry(to, "../escape", &st, NULL), 0);
        CHECK_EQ(to->entry(to, "/etc/passwd", &st, NULL), 0);
        CHECK_EQ(to->entry(to, "a//b", &st, NULL), 0);
        CHECK_EQ(to->entry(to, ".", &dir, NULL), 0);
        CHECK_EQ(to->listed(to, "../.."), 0);
        if (deep) {
                for (size_t i = 0; i < 20000; i++)
                        memcpy(deep + 2 * i, "d/", 2);
                deep[39999] = '\0';
                CHECK_EQ(to->entry(to, deep, &dir, NULL), 0);
        }
        free(deep);
}

static void hostile_listings_bring_nothing(void)
{
        struct fixture f;
        struct seen s;

        if (!fixture_init(&f))
                return;
        plant(&f, "", 1, 1);
        f.box.add = add_hostile;
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), 0);
        CHECK_EQ(s.count, 1);
        CHECK_STR(s.last, "d0");
        CHECK_EQ(find(&f, VOLUME_ROOT), 2);
        fixture_done(&f);
}

static void statfs_is_asked_once_a_second(void)
{
        struct fixture f;
        struct statvfs fs;

        if (!fixture_init_ttl(&f, 100 * NS_PER_MS))
                return;
        for (int i = 0; i < 5; i++)
                CHECK_EQ(f.ops->statfs(f.v, &f.op, &fs), 0);
        CHECK(fs.f_blocks > 0);
        CHECK_EQ(atomic_load(&f.box.calls[FAKE_STATFS]), 1);
        sleep_ms(150);
        CHECK_EQ(f.ops->statfs(f.v, &f.op, &fs), 0);
        CHECK_EQ(atomic_load(&f.box.calls[FAKE_STATFS]), 2);
        fixture_done(&f);
}

int main(void)
{
        RUN(a_walk_costs_one_or_two_listings);
        RUN(lookups_in_a_listed_directory_are_free);
        RUN(a_second_directory_brings_the_tree_of_their_parent);
        RUN(what_is_below_the_first_look_comes_with_it);
        RUN(a_lone_file_in_a_large_directory_is_asked_for_alone);
        RUN(many_at_once_ask_once);
        RUN(a_huge_directory_is_listed_when_it_is_read_only);
        RUN(what_is_older_than_the_ttl_is_asked_for_anew);
        RUN(a_commands_end_makes_all_old);
        RUN(what_is_quiet_stays_known);
        RUN(nothing_old_is_served_when_the_host_is_away);
        RUN(own_changes_are_known_at_once);
        RUN(fs_itself_answers_at_once_with_our_changes);
        RUN(a_listing_does_not_undo_a_change_that_overtook_it);
        RUN(rename_takes_the_subtree_along);
        RUN(a_lost_answer_is_looked_into);
        RUN(changes_inside_show_as_other_files);
        RUN(links_answer_what_stays_inside);
        RUN(hard_links_share_a_node_where_inodes_are_real);
        RUN(what_is_only_here_is_shown_though_its_directory_is_not);
        RUN(anything_may_happen_at_once);
        RUN(an_open_directory_keeps_its_places);
        RUN(hostile_listings_bring_nothing);
        RUN(statfs_is_asked_once_a_second);
        return check_result();
}
