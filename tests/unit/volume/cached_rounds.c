/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the cached volume beside a model of one: random operations, and deaths at any point.
 * What fails prints its seed.
 */

#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/unit/volume/content_support.h"

/* The thread sanitizer takes ten times as long. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define SHARE 4
#endif
#endif
#ifndef SHARE
#define SHARE 1
#endif

/* ---- against a plain file ---- */

#define MODEL_SIZE ((size_t)700 * 1024)

struct model {
        char data[MODEL_SIZE * 2];
        uint64_t size;
};

static uint64_t chance(unsigned *seed)
{
        return (uint64_t)rand_r(seed) << 16 ^ (uint64_t)rand_r(seed);
}

static void model_write(struct model *m, const char *data, size_t size, uint64_t at)
{
        memcpy(m->data + at, data, size);
        if (at + size > m->size)
                m->size = at + size;
}

static void model_resize(struct model *m, uint64_t size)
{
        if (size < m->size)
                memset(m->data + size, 0, m->size - size);
        m->size = size;
}

static bool compare_range(struct world *w, struct vol_file *f, const struct model *m, uint64_t at,
                          size_t size)
{
        char *got = malloc(size + 1);
        ssize_t n = got ? read_file(w, f, got, size, at) : -ENOMEM;
        uint64_t expected = at >= m->size ? 0 : m->size - at < size ? m->size - at : size;
        bool ok =
                CHECK_EQ(n, (int64_t)expected) && CHECK(memcmp(got, m->data + at, (size_t)n) == 0);

        free(got);
        return ok;
}

static bool compare_real(struct world *w, const char *path, const struct model *m)
{
        int fd = openat(w->box.dir, path, O_RDONLY);
        char *got = malloc(MODEL_SIZE * 2);
        ssize_t n = fd >= 0 && got ? file_pread_full(fd, got, MODEL_SIZE * 2, 0) : -1;
        bool ok = CHECK_EQ(n, (int64_t)m->size) && CHECK(got) &&
                  CHECK(memcmp(got, m->data, (size_t)n) == 0);

        free(got);
        if (fd >= 0)
                (void)close(fd); /* read only */
        return ok;
}

static void random_operations_equal_a_plain_file(void)
{
        struct world w = {.ttl_ns = 5 * NS_PER_MS};
        struct model *m = calloc(1, sizeof(*m));
        unsigned seed = (unsigned)clock_real_ns(), first = seed;
        char *noise = pattern(65536);
        const char *name = "a", *other = "b";
        struct vol_file *f;
        bool ok = true;

        if (!world_init(&w) || !CHECK(m && noise))
                return;
        real_put(&w, "a", noise, 65536);
        model_write(m, noise, 65536, 0);
        f = open_at(&w, name, O_RDWR);
        for (int i = 0; ok && i < 10000 / SHARE; i++) {
                uint64_t at = chance(&seed) % MODEL_SIZE, what = chance(&seed) % 100;
                size_t size = (size_t)(chance(&seed) % (what % 7 == 0 ? 60000 : 500)) + 1;
                struct asking a;

                if (at > m->size + 20000)
                        at = m->size;
                noise[chance(&seed) % 65536] ^= (char)i;
                if (what < 45) {
                        ok = compare_range(&w, f, m, at, size);
                } else if (what < 80) {
                        ok = CHECK_EQ(write_file(&w, f, noise, size, at), size);
                        model_write(m, noise, size, at);
                } else if (what < 88) {
                        ok = CHECK_EQ(write_file(&w, f, noise, size % 4000, m->size % MODEL_SIZE),
                                      size % 4000);
                        model_write(m, noise, size % 4000, m->size % MODEL_SIZE);
                } else if (what < 91) {
                        at = chance(&seed) % 3 ? at : m->size / 2;
                        ok = CHECK_EQ(resize_file(&w, f, node_of(&w, name), at), 0);
                        model_resize(m, at);
                } else if (what < 93) {
                        const char *t = name;

                        ok = CHECK_EQ(w.ops->rename(w.v, ask(&a, true), VOLUME_ROOT, name,
                                                    VOLUME_ROOT, other, 0),
                                      0);
                        name = other;
                        other = t;
                } else if (what < 97) {
                        int flags = what == 96 ? O_RDWR | O_TRUNC : O_RDWR;

                        ok = CHECK_EQ(close_file(&w, f), 0) && compare_real(&w, name, m);
                        f = open_at(&w, name, flags);
                        ok = ok && CHECK(f);
                        if (flags & O_TRUNC)
                                model_resize(m, 0);
                } else if (what == 97) {
                        ok = CHECK_EQ(w.ops->fsync(w.v, ask(&a, true), f, false), 0) &&
                             compare_real(&w, name, m);
                } else if (what == 98) {
                        uint64_t end = at + size < m->size ? at + size : m->size;

                        ok = CHECK_EQ(w.ops->fallocate(w.v, ask(&a, true), f,
                                                       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                       at, size),
                                      0);
                        if (at < end)
                                memset(m->data + at, 0, end - at);
                } else {
                        w.ops->exec_ended(w.v);
                }
                if (!ok)
                        (void)fprintf(stderr, "seed %u, step %d, what %d\n", first, i, (int)what);
        }
        if (ok) {
                CHECK_EQ(close_file(&w, f), 0);
                compare_real(&w, name, m);
        }
        CHECK_EQ(atomic_load(&w.box.noticed_events), 0); /* nobody else changes anything */
        free(noise);
        free(m);
        world_done(&w);
}

/* ---- crashes ---- */

/* In a child: writes to files and says what was answered, until it dies at any point. */
static void write_until_death(struct world *w, struct model *shared, unsigned seed)
{
        struct vol_file *f = NULL;
        char *noise = pattern(65536);
        uint64_t steps = chance(&seed) % 60 + 1;

        /* Its sandbox is out of reach, so that nothing is sent. */
        for (uint64_t i = 0; i < steps; i++) {
                uint64_t at = chance(&seed) % 100000, what = chance(&seed) % 10;
                size_t size = (size_t)(chance(&seed) % 3000) + 1;

                if (!f || what == 0) {
                        int flags = chance(&seed) % 4 == 0 ? O_RDWR | O_TRUNC : O_RDWR;

                        if (f)
                                w->ops->release(w->v, f);
                        f = open_at(w, "a", flags);
                        if (!f)
                                _exit(3);
                        if (flags & O_TRUNC)
                                model_resize(shared, 0);
                } else if (what == 1) {
                        if (resize_file(w, f, node_of(w, "a"), at) != 0)
                                _exit(4);
                        model_resize(shared, at);
                } else {
                        if (write_file(w, f, noise + i, size, at) != (ssize_t)size)
                                _exit(5);
                        model_write(shared, noise + i, size, at);
                }
        }
        _exit(0);
}

static bool crash_once(unsigned seed, struct model *shared)
{
        struct world w = {0};
        struct vol_file *f;
        int status = -1;
        pid_t pid;
        bool ok;

        shared->size = 0;
        memset(shared->data, 0, sizeof(shared->data));
        if (!world_init(&w))
                return false;
        world_unmount(&w);
        if (seed % 3 != 0) {
                char *data = pattern(50000);

                real_put(&w, "a", data, 50000);
                model_write(shared, data, 50000, 0);
                free(data);
        } else {
                real_put(&w, "a", "", 0);
        }
        pid = fork();
        if (pid == 0) {
                if (!world_mount(&w) || node_of(&w, "a") == 0)
                        _exit(2);
                atomic_store(&w.box.error[FAKE_APPLY], -EHOSTUNREACH);
                write_until_death(&w, shared, seed);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        ok = CHECK_EQ(status, 0);
        if (ok && world_mount(&w)) {
                f = open_at(&w, "a", O_RDONLY);
                ok = CHECK(f) && compare_range(&w, f, shared, 0, MODEL_SIZE);
                if (f)
                        w.ops->release(w.v, f);
                CHECK_EQ(sync_all(&w), 0);
                ok = ok && compare_real(&w, "a", shared);
                CHECK_EQ(dirty_files(&w), 0);
                world_unmount(&w);
        }
        world_done(&w);
        return ok;
}

static void what_was_answered_survives_death(void)
{
        struct model *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        unsigned seed = (unsigned)clock_real_ns();

        if (!CHECK(shared != MAP_FAILED))
                return;
        for (int i = 0; i < 120 / SHARE; i++, seed += 7) {
                if (!crash_once(seed, shared)) {
                        (void)fprintf(stderr, "seed %u, round %d\n", seed, i);
                        break;
                }
        }
        (void)munmap(shared, sizeof(*shared));
}

int main(void)
{
        RUN(random_operations_equal_a_plain_file);
        RUN(what_was_answered_survives_death);
        return check_result();
}
