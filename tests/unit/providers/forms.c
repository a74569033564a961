/* SPDX-License-Identifier: Apache-2.0 */
/* The generic forms, by a shell of this machine: with GNU's tools, and with busybox's. */

#include "providers/shell/forms.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/base/list.h"
#include "transport/child.h"

#define LARGE ((size_t)5 << 20)
#define HARD "a b'c\"d\n$(x)`y`\\*\xff"

static char top[PATH_MAX], dir[PATH_MAX + 16], bin[PATH_MAX + 16], path_variable[PATH_MAX + 64];
static struct shell *shell;
static struct forms forms;

static struct call *new_call(struct call *c)
{
        call_init(c, clock_after(100 * NS_PER_S));
        return c;
}

static int open_child(struct shell_opener *o, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret)
{
        const char *const argv[] = {"sh", "-c", command, NULL};
        const char *const envp[] = {path_variable, NULL};
        char program[PATH_MAX + 32];

        (void)o;
        (void)snprintf(program, sizeof(program), "%s/sh", bin);
        return child_open(program, argv, envp, events, c, ret);
}

static struct shell_opener opener = {.open = open_child};

/* ---- content ---- */

struct bytes {
        struct file_source source;
        unsigned char *data;
};

static int read_bytes(struct file_source *from, void *data, size_t size, uint64_t offset)
{
        memcpy(data, container_of(from, struct bytes, source)->data + offset, size);
        return 0;
}

static void bytes_init(struct bytes *b, size_t size)
{
        *b = (struct bytes){.source = {.read = read_bytes, .size = size}, .data = malloc(size + 1)};
        for (size_t i = 0; i < size; i++)
                b->data[i] = (unsigned char)(i * 2654435761U >> 13);
}

static int apply(struct change *x, size_t count)
{
        struct call c;
        int r;

        for (size_t i = 0; i < count; i++)
                x[i].error = -EINPROGRESS;
        r = forms_apply(&forms, new_call(&c), x, count);
        if (!CHECK_EQ(r, 0))
                (void)fprintf(stderr, "%s\n", c.sentence);
        return x[0].error;
}

static struct change store_of(const char *path, struct bytes *from)
{
        return (struct change){.kind = CHANGE_STORE,
                               .path = path,
                               .mode = 0640,
                               .what = FILE_SET_MTIME,
                               .mtime = {1600000000, 0},
                               .from = &from->source};
}

static int store(const char *path, struct bytes *from)
{
        struct change x = store_of(path, from);
        int r = apply(&x, 1);

        CHECK_EQ(x.has_st, r == 0);
        if (r == 0) {
                CHECK_EQ(x.st.st_size, from->source.size);
                CHECK_EQ(x.st.st_mode, S_IFREG | 0640);
                CHECK_EQ(x.st.st_mtim.tv_sec, 1600000000);
        }
        return r;
}

static int simple(enum change_kind kind, const char *path, const char *to, unsigned flags)
{
        struct change x = {.kind = kind, .path = path, .to = to, .flags = flags, .mode = 0755};

        return apply(&x, 1);
}

static bool is_content(const char *path, const struct bytes *b)
{
        unsigned char *data = malloc(b->source.size + 2);
        char whole[3 * PATH_MAX];
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
        static const size_t sizes[] = {0, 1, 4096, 600000, LARGE};

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct bytes b;

                bytes_init(&b, sizes[i]);
                CHECK_EQ(store(HARD, &b), 0);
                CHECK(is_content(HARD, &b));
                CHECK_EQ(store("no/such", &b), -ENOENT);
                CHECK_EQ(store(HARD "/x", &b), -ENOTDIR);
                free(b.data);
        }
}

static void many_go_together(void)
{
        enum { COUNT = 300 };
        static struct change list[COUNT + 3];
        static char names[COUNT][64];
        struct bytes b, other;
        size_t n = 0;

        bytes_init(&b, 3000);
        bytes_init(&other, 10);
        list[n++] = (struct change){.kind = CHANGE_MKDIR, .path = "many", .mode = 0755};
        list[n++] = (struct change){.kind = CHANGE_MKDIR, .path = "many/-sub dir", .mode = 0700};
        list[n++] = (struct change){.kind = CHANGE_MKDIR, .path = "many/isdir", .mode = 0700};
        for (size_t i = 0; i < COUNT; i++) {
                (void)snprintf(names[i], sizeof(names[i]), "%s/%s%zu",
                               i % 5 == 1   ? "nodir"
                               : i % 5 == 2 ? "many/-sub dir"
                                            : "many",
                               i % 3 == 0 ? "-f\n'" : "g", i);
                list[n++] = store_of(names[i], &b);
        }
        (void)snprintf(names[3], sizeof(names[3]), "many/isdir");
        CHECK_EQ(apply(list, n), 0);
        for (size_t i = 0; i < COUNT; i++) {
                const struct change *x = &list[i + 3];

                CHECK_EQ(x->error, i % 5 == 1 ? -ENOENT : i == 3 ? -EISDIR : 0);
                CHECK_EQ(x->has_st, x->error == 0);
                if (x->error == 0)
                        CHECK(x->st.st_mode == (S_IFREG | 0640) && x->st.st_size == 3000);
        }
        CHECK(is_content("many/-f\n'0", &b));
        list[0] = store_of("many/-f\n'0", &other);
        list[0].flags = CHANGE_EXCLUSIVE;
        list[1] = store_of("many/new", &other);
        list[1].flags = CHANGE_EXCLUSIVE;
        CHECK_EQ(apply(list, 2), -EEXIST);
        CHECK_EQ(list[1].error, 0);
        CHECK(is_content("many/new", &other) && is_content("many/-f\n'0", &b));
        free(b.data);
        free(other.data);
}

static void extents_are_written_in_place(void)
{
        struct file_extent extents[] = {{5, 100}, {70001, 3}, {4096 * 300, 4096 * 400}};
        struct change x = {.kind = CHANGE_WRITE,
                           .path = "place",
                           .extents = extents,
                           .extent_count = 3,
                           .what = FILE_SET_SIZE | FILE_SET_MTIME,
                           .mtime = {1500000000, 0},
                           .size = 4 << 20};
        struct bytes old, new;
        struct stat st;
        struct call c;

        bytes_init(&old, 1 << 20);
        bytes_init(&new, 4 << 20);
        for (size_t i = 0; i < new.source.size; i++)
                new.data[i] ^= 0x55;
        CHECK_EQ(store("place", &old), 0);
        x.from = &new.source;
        CHECK_EQ(apply(&x, 1), 0);
        for (size_t i = 0, k = 0; i < new.source.size; i++) {
                k += k < 3 && i == extents[k].offset + extents[k].size;
                if (k == 3 || i < extents[k].offset)
                        new.data[i] = i < old.source.size ? old.data[i] : 0;
        }
        CHECK(is_content("place", &new));
        CHECK_EQ(forms_stat(&forms, new_call(&c), "place", &st), 0);
        CHECK_EQ(st.st_mtim.tv_sec, 1500000000);
        x.path = "absent";
        CHECK_EQ(apply(&x, 1), -ENOENT);
        x.path = "many";
        CHECK_EQ(apply(&x, 1), -EISDIR);
        /* sparse, and new */
        x.path = "sparse";
        x.kind = CHANGE_STORE;
        x.mode = 0600;
        CHECK_EQ(apply(&x, 1), 0);
        CHECK_EQ(x.st.st_size, 4 << 20);
        free(old.data);
        free(new.data);
}

static void names_are_changed_as_by_system_calls(void)
{
        struct bytes b;
        char target[PATH_MAX];
        struct stat st;
        struct call c;

        bytes_init(&b, 7);
        CHECK_EQ(simple(CHANGE_MKDIR, "d", NULL, 0), 0);
        CHECK_EQ(simple(CHANGE_MKDIR, "d", NULL, 0), -EEXIST);
        CHECK_EQ(simple(CHANGE_MKDIR, "x/y", NULL, 0), -ENOENT);
        CHECK_EQ(store("f", &b), 0);
        CHECK_EQ(simple(CHANGE_MKDIR, "f/y", NULL, 0), -ENOTDIR);
        CHECK_EQ(simple(CHANGE_SYMLINK, "l", "d", 0), 0);
        CHECK_EQ(simple(CHANGE_SYMLINK, "l", "-e\nf", 0), -EEXIST);
        CHECK_EQ(simple(CHANGE_SYMLINK, "l2", "-e\nf", 0), 0);
        CHECK_EQ(forms_readlink(&forms, new_call(&c), "l2", target, sizeof(target)), 0);
        CHECK_STR(target, "-e\nf");
        CHECK_EQ(forms_readlink(&forms, new_call(&c), "f", target, sizeof(target)), -EINVAL);
        CHECK_EQ(forms_readlink(&forms, new_call(&c), "q", target, sizeof(target)), -ENOENT);
        CHECK_EQ(simple(CHANGE_LINK, "f", "f2", 0), 0);
        CHECK_EQ(simple(CHANGE_LINK, "f", "d", 0), -EEXIST);
        CHECK_EQ(simple(CHANGE_LINK, "d", "d2", 0), -EPERM);
        CHECK_EQ(simple(CHANGE_UNLINK, "d", NULL, 0), -EISDIR);
        CHECK_EQ(simple(CHANGE_UNLINK, "nope", NULL, 0), -ENOENT);
        CHECK_EQ(simple(CHANGE_UNLINK, "f2", NULL, 0), 0);
        CHECK_EQ(simple(CHANGE_RMDIR, "f", NULL, 0), -ENOTDIR);
        CHECK_EQ(simple(CHANGE_RMDIR, "many", NULL, 0), -ENOTEMPTY);
        /* over a link to a directory, and never into one */
        CHECK_EQ(simple(CHANGE_RENAME, "f", "l", RENAME_NOREPLACE), -EEXIST);
        CHECK_EQ(simple(CHANGE_RENAME, "f", "l", 0), 0);
        CHECK_EQ(forms_stat(&forms, new_call(&c), "l", &st), 0);
        CHECK(S_ISREG(st.st_mode));
        CHECK_EQ(simple(CHANGE_RENAME, "l", "d", 0), -EISDIR);
        CHECK_EQ(simple(CHANGE_RENAME, "d", "l", 0), -ENOTDIR);
        CHECK_EQ(simple(CHANGE_RENAME, "d", "many", 0), -ENOTEMPTY);
        CHECK_EQ(simple(CHANGE_MKDIR, "e", NULL, 0), 0);
        CHECK_EQ(simple(CHANGE_RENAME, "d", "e", 0), 0);
        CHECK_EQ(forms_stat(&forms, new_call(&c), "e/d", &st), -ENOENT);
        CHECK_EQ(simple(CHANGE_RENAME, "gone", "e2", 0), -ENOENT);
        CHECK_EQ(simple(CHANGE_RMDIR, "e", NULL, 0), 0);
        /* a store over what is a link replaces it */
        CHECK_EQ(simple(CHANGE_SYMLINK, "over", "many", 0), 0);
        CHECK_EQ(store("over", &b), 0);
        CHECK_EQ(forms_stat(&forms, new_call(&c), "over", &st), 0);
        CHECK(S_ISREG(st.st_mode));
        free(b.data);
}

static void attributes_are_set(void)
{
        struct change x = {.kind = CHANGE_SET, .path = "over", .what = FILE_SET_MODE, .mode = 0400};
        struct call c;
        struct stat st;

        CHECK_EQ(apply(&x, 1), 0);
        CHECK_EQ(x.st.st_mode, S_IFREG | 0400);
        x.what = FILE_SET_SIZE;
        x.size = 3;
        x.mode = 0;
        CHECK_EQ(apply(&x, 1), 0);
        CHECK_EQ(x.st.st_size, 3);
        x.size = UINT64_C(5) << 30;
        CHECK_EQ(apply(&x, 1), 0);
        CHECK_EQ(x.st.st_size, UINT64_C(5) << 30);
        x.what = FILE_SET_ATIME | FILE_SET_MTIME;
        x.atime = (struct timespec){1000000000, 0};
        x.mtime = (struct timespec){1100000000, 250000000};
        CHECK_EQ(apply(&x, 1), 0);
        CHECK_EQ(x.st.st_mtim.tv_sec, 1100000000);
        CHECK_EQ(x.st.st_mtim.tv_nsec, forms.can & FORM_TOUCH_NS ? 250000000 : 0);
        CHECK_EQ(x.st.st_atim.tv_sec, 1000000000);
        x.path = "absent";
        CHECK_EQ(apply(&x, 1), -ENOENT);
        CHECK_EQ(forms_stat(&forms, new_call(&c), "absent", &st), -ENOENT);
        x.what = FILE_SET_SIZE;
        CHECK_EQ(apply(&x, 1), -ENOENT);
        x.path = "many";
        CHECK_EQ(apply(&x, 1), -EISDIR);
        CHECK_EQ(simple(CHANGE_UNLINK, "over", NULL, 0), 0);
}

/* ---- what is read ---- */

struct seen {
        struct file_list_sink sink;
        size_t entries, listed, hard;
};

static int on_entry(struct file_list_sink *to, const char *path, const struct stat *st,
                    const char *target)
{
        struct seen *s = container_of(to, struct seen, sink);

        (void)target;
        s->entries++;
        s->hard += strcmp(path, HARD) == 0 && (size_t)st->st_size == LARGE;
        return 0;
}

static int on_listed(struct file_list_sink *to, const char *path)
{
        (void)path;
        container_of(to, struct seen, sink)->listed++;
        return 0;
}

static void trees_are_listed(void)
{
        struct file_listing what = {.path = "", .depth = 10};
        struct seen s = {.sink = {on_entry, on_listed}};
        struct call c;

        CHECK_EQ(forms_list(&forms, new_call(&c), &what, &s.sink), 0);
        CHECK(s.entries > 240);
        CHECK_EQ(s.hard, 1);
        CHECK_EQ(s.listed, 4);
        what.path = "many/-sub dir";
        CHECK_EQ(forms_list(&forms, new_call(&c), &what, &s.sink), 0);
        CHECK_EQ(s.listed, 5);
        what.path = "absent";
        CHECK_EQ(forms_list(&forms, new_call(&c), &what, &s.sink), -ENOENT);
        what.path = "l";
        CHECK_EQ(forms_list(&forms, new_call(&c), &what, &s.sink), -ENOTDIR);
}

struct fetched {
        struct file_sink sink;
        size_t good, large, absent, wrong;
};

static int on_file(struct file_sink *to, size_t index, int error, const struct stat *st,
                   const void *data, size_t size)
{
        struct fetched *f = container_of(to, struct fetched, sink);

        (void)index;
        (void)data;
        f->good += error == 0 && size == 3000;
        f->large += error == -EFBIG && (size_t)st->st_size == LARGE;
        f->absent += error == -ENOENT;
        f->wrong += error == -EINVAL;
        return 0;
}

static void files_are_read(void)
{
        const char *const paths[] = {"many/-f\n'0", HARD, "many/g5", "absent", "many", "many/g10"};
        struct fetched f = {.sink.file = on_file};
        unsigned char *data = malloc(LARGE);
        struct statvfs fs;
        struct stat st;
        struct bytes b;
        struct call c;

        CHECK_EQ(forms_fetch(&forms, new_call(&c), paths, 6, 1 << 20, &f.sink), 0);
        CHECK_EQ(f.good, 3);
        CHECK_EQ(f.large, 1);
        CHECK_EQ(f.absent, 1);
        CHECK_EQ(f.wrong, 1);
        bytes_init(&b, LARGE);
        CHECK_EQ(forms_read(&forms, new_call(&c), HARD, data, 100000, 123457, &st), 100000);
        CHECK_EQ(memcmp(data, b.data + 123457, 100000), 0);
        CHECK_EQ(forms_read(&forms, new_call(&c), HARD, data, LARGE, 0, &st), LARGE);
        CHECK_EQ(memcmp(data, b.data, LARGE), 0);
        CHECK_EQ(st.st_size, LARGE);
        CHECK_EQ(forms_read(&forms, new_call(&c), HARD, data, 100, LARGE - 3, NULL), 3);
        CHECK_EQ(forms_read(&forms, new_call(&c), HARD, data, 100, LARGE + 3, NULL), 0);
        CHECK_EQ(forms_read(&forms, new_call(&c), "absent", data, 100, 0, NULL), -ENOENT);
        CHECK_EQ(forms_statfs(&forms, new_call(&c), &fs), 0);
        CHECK(fs.f_blocks > 0);
        free(b.data);
        free(data);
}

/* ---- with which tools ---- */

static void run_all(const char *command)
{
        char text[4 * PATH_MAX], base[] = "/tmp/sbxfs-forms-XXXXXX";
        struct call c;

        if (!CHECK(mkdtemp(base) != NULL))
                return;
        (void)snprintf(top, sizeof(top), "%s", base);
        (void)snprintf(dir, sizeof(dir), "%s/it's", top);
        (void)snprintf(bin, sizeof(bin), "%s/bin", top);
        (void)snprintf(path_variable, sizeof(path_variable), "PATH=%s", bin);
        (void)snprintf(text, sizeof(text), "mkdir %s \"%s\" && cd %s && %s", bin, dir, bin,
                       command);
        CHECK_EQ(system(text), 0);
        CHECK_EQ(shell_new(&opener, &shell), 0);
        struct shell_by_helpers by = shell_by_helpers(shell);

        forms = (struct forms){.by = &by.runner, .root = dir};
        if (CHECK_EQ(forms_probe(&forms, new_call(&c)), 0)) {
                RUN(content_of_any_size_arrives);
                RUN(many_go_together);
                RUN(extents_are_written_in_place);
                RUN(names_are_changed_as_by_system_calls);
                RUN(attributes_are_set);
                RUN(trees_are_listed);
                RUN(files_are_read);
        }
        shell_free(shell);
        CHECK_EQ(file_remove_tree(AT_FDCWD, top), 0);
}

int main(void)
{
        run_all("for i in sh stat find touch mv tar dd cat mkdir rm rmdir ln chmod readlink tr; do "
                "ln -s $(command -v $i) $i; done");
        run_all("for i in $(busybox --list); do ln -s $(command -v busybox) $i; done");
        /* an old mv, and no tar */
        run_all("for i in $(busybox --list); do ln -s $(command -v busybox) $i; done; "
                "rm mv tar; printf '%s\\n' '#!/bin/sh' 'case $1 in *T*) echo invalid; exit 1; esac' "
                "'exec busybox mv \"$@\"' >mv; chmod 755 mv");
        return check_result();
}
