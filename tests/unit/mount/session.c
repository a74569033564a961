/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs/mount/ on a tree in memory, mounted for real: what is parked costs nobody anything, who waits
 * can be interrupted, a stuck operation stops no other, and the end comes within a second.
 *
 * usage: unit-mount-session            all tests
 *        unit-mount-session serve DIR  mount on DIR until it is unmounted, for measurements by hand
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/check.h"
#include "tests/unit/mount/fake_tree.h"
#include "fs/mount/mountpoint.h"
#include "fs/mount/session.h"
#include "fs/tree/tree.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/base/worker.h"

#define READERS 200
#define PATIENCE_MS 30000 /* what only a hang exceeds */
#define KILLED_MS 8000 /* less than the 10 s after which a try on a worker ends by itself */
#define LISTED_US 1000000

/* ---- one mount a test ---- */

struct fixture {
        char path[64];
        struct workers *workers;
        struct session *session;
        struct tree *tree;
        pthread_t thread;
        atomic_bool is_clean;
        atomic_bool has_ended;
};

static int reload(void *ctx, struct call *c)
{
        (void)ctx;
        (void)c;
        return 0;
}

static void *run_session(void *arg)
{
        struct fixture *f = arg;

        atomic_store(&f->is_clean, session_run(f->session));
        atomic_store(&f->has_ended, true);
        return NULL;
}

static bool start_on(struct fixture *f, const char *path)
{
        struct session_config config = {.reload = reload};
        struct call c;

        *f = (struct fixture){0};
        (void)snprintf(f->path, sizeof(f->path), "%s", path);
        call_init(&c, NEVER_NS);
        if (!CHECK_EQ(workers_new((const unsigned[]){8, 1, 8}, &f->workers), 0))
                return false;
        config.mountpoint = f->path;
        config.workers = f->workers;
        if (!CHECK_EQ(session_new(&config, &f->session), 0))
                return false;
        f->tree = fake_tree_new(session_events(f->session));
        if (!CHECK_EQ(session_mount(f->session, f->tree, &c), 0)) {
                (void)fprintf(stderr, "%s\n", c.sentence);
                return false;
        }
        return CHECK_EQ(pthread_create(&f->thread, NULL, run_session, f), 0);
}

static bool start(struct fixture *f)
{
        char path[] = "/tmp/sbxfs-unit-XXXXXX";

        return CHECK(mkdtemp(path)) && start_on(f, path);
}

/* The session has been told to end. */
static void finish(struct fixture *f)
{
        CHECK_EQ(pthread_join(f->thread, NULL), 0);
        CHECK(atomic_load(&f->is_clean));
        CHECK_EQ(fake_open_handles(f->tree), 0);
        CHECK(workers_free(f->workers, clock_after(PATIENCE_MS * NS_PER_MS)));
        session_free(f->session);
        fake_tree_free(f->tree);
        CHECK_EQ(rmdir(f->path), 0);
}

static void stop(struct fixture *f)
{
        session_stop(f->session);
        finish(f);
}

/* ---- clients: the mount is only ever touched by children ---- */

static const char *in(const struct fixture *f, const char *name)
{
        static _Thread_local char path[128];

        (void)snprintf(path, sizeof(path), "%s/%s", f->path, name);
        return path;
}

/* Exit status of a reader: the errno, or 0 when it got data. */
static int read_once(const char *path, off_t offset)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        char data[64];

        if (fd < 0)
                return errno;
        return pread(fd, data, sizeof(data), offset) < 0 ? errno : 0;
}

static void ignore_it(int signal)
{
        (void)signal;
}

/* Never -1: signals are sent to what it returns. */
static pid_t start_child(void)
{
        pid_t pid = fork();

        if (pid < 0)
                abort();
        return pid;
}

/* A child that reads once. SIGALRM has a handler there that does nothing. */
static pid_t spawn_reader(const char *path)
{
        struct sigaction action = {.sa_handler = ignore_it};
        sigset_t none;
        pid_t pid = start_child();

        if (pid != 0)
                return pid;
        (void)alarm(0);
        (void)sigemptyset(&none);
        (void)sigaction(SIGALRM, &action, NULL);
        (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
        _exit(read_once(path, 0));
}

/* Wait for a child until `ms` have passed; its wait status, or -1. */
static int reap(pid_t pid, unsigned ms)
{
        uint64_t end = clock_after(ms * NS_PER_MS);
        int status;

        do {
                if (waitpid(pid, &status, WNOHANG) == pid)
                        return status;
                (void)usleep(1000);
        } while (clock_mono_ns() < end);
        return -1;
}

static int exited(int code)
{
        return code << 8;
}

/* Microseconds of one listing with attributes by a child; the least of several. */
static unsigned list_us(const struct fixture *f)
{
        int ends[2];
        unsigned us = UINT32_MAX;
        pid_t pid;

        if (pipe2(ends, O_CLOEXEC) < 0)
                return us;
        pid = start_child();
        if (pid == 0) {
                for (size_t i = 0; i < 9; i++) {
                        uint64_t begin = clock_mono_ns();
                        DIR *dir = opendir(f->path);
                        struct dirent *e;
                        struct stat st;
                        unsigned took;

                        while (dir && (e = readdir(dir)))
                                if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                                        _exit(1);
                        if (!dir || closedir(dir) < 0)
                                _exit(1);
                        took = (unsigned)((clock_mono_ns() - begin) / NS_PER_US);
                        us = took < us ? took : us;
                }
                _exit(write(ends[1], &us, sizeof(us)) == (ssize_t)sizeof(us) ? 0 : 1);
        }
        (void)close(ends[1]);
        CHECK_EQ(reap(pid, PATIENCE_MS), exited(0));
        if (read(ends[0], &us, sizeof(us)) != (ssize_t)sizeof(us))
                us = UINT32_MAX;
        (void)close(ends[0]);
        return us;
}

static bool wait_for(const struct fixture *f, unsigned (*value)(struct tree *), unsigned count)
{
        uint64_t end = clock_after(PATIENCE_MS * NS_PER_MS);

        while (value(f->tree) < count && clock_mono_ns() < end)
                (void)usleep(1000);
        return CHECK(value(f->tree) >= count);
}

/* Wait until `count` reads were tried in all. */
static bool wait_tries(const struct fixture *f, unsigned count)
{
        return wait_for(f, fake_tries, count);
}

static unsigned thread_count(void)
{
        DIR *dir = opendir("/proc/self/task");
        unsigned n = 0;

        while (dir && readdir(dir))
                n++;
        if (dir)
                (void)closedir(dir);
        return n;
}

/* ---- tests ---- */

static void files_can_be_read_and_listed(void)
{
        struct fixture f;

        if (!start(&f))
                return;
        CHECK_EQ(reap(spawn_reader(in(&f, "plain")), PATIENCE_MS), exited(0));
        CHECK_EQ(reap(spawn_reader(in(&f, "absent")), PATIENCE_MS), exited(ENOENT));
        CHECK(list_us(&f) < LISTED_US);
        stop(&f);
}

static void start_readers(struct fixture *f, const char *name, pid_t *pids)
{
        unsigned before = fake_tries(f->tree);

        for (size_t i = 0; i < READERS; i++)
                pids[i] = spawn_reader(in(f, name));
        (void)wait_tries(f, before + READERS);
}

static void kill_readers(const pid_t *pids, int signal)
{
        uint64_t begin = clock_mono_ns();

        for (size_t i = 0; i < READERS; i++)
                CHECK_EQ(kill(pids[i], signal), 0);
        for (size_t i = 0; i < READERS; i++)
                CHECK_EQ(reap(pids[i], PATIENCE_MS), signal);
        CHECK(clock_mono_ns() - begin < PATIENCE_MS * NS_PER_MS);
}

static void blocked_readers_cost_no_thread(void)
{
        pid_t pids[READERS];
        struct fixture f;

        if (!start(&f))
                return;
        start_readers(&f, "block", pids);
        CHECK(list_us(&f) < LISTED_US); /* it is answered */
        for (unsigned i = 0; i < 2000 && thread_count() >= 20; i++)
                (void)usleep(10000); /* some are about to end */
        CHECK(thread_count() < 20);
        kill_readers(pids, SIGINT);
        stop(&f);
}

static void blocked_readers_die_at_once(void)
{
        pid_t pids[READERS];
        struct fixture f;

        if (!start(&f))
                return;
        start_readers(&f, "block", pids);
        kill_readers(pids, SIGKILL);
        start_readers(&f, "wait", pids);
        kill_readers(pids, SIGTERM);
        stop(&f);
}

static void blocked_readers_are_woken(void)
{
        pid_t pids[READERS];
        struct fixture f;

        if (!start(&f))
                return;
        start_readers(&f, "block", pids);
        fake_open_gate(f.tree);
        for (size_t i = 0; i < READERS; i++)
                CHECK_EQ(reap(pids[i], PATIENCE_MS), exited(0));
        stop(&f);
}

static void a_timer_does_not_interrupt(void)
{
        struct fixture f;
        pid_t pid;

        if (!start(&f))
                return;
        pid = spawn_reader(in(&f, "block"));
        (void)wait_tries(&f, 1);
        for (unsigned i = 0; i < 3; i++) {
                CHECK_EQ(kill(pid, SIGALRM), 0);
                CHECK_EQ(reap(pid, 150), -1);
        }
        fake_open_gate(f.tree);
        CHECK_EQ(reap(pid, PATIENCE_MS), exited(0));
        stop(&f);
}

static void kill_works_after_an_ignored_signal(void)
{
        static const int deadly[] = {SIGKILL, SIGINT, SIGTERM};
        struct fixture f;

        if (!start(&f))
                return;
        for (size_t i = 0; i < 3; i++) {
                unsigned before = fake_tries(f.tree);
                pid_t pid = spawn_reader(in(&f, "block"));

                (void)wait_tries(&f, before + 1);
                CHECK_EQ(kill(pid, SIGALRM), 0);
                CHECK_EQ(reap(pid, 150), -1);
                CHECK_EQ(kill(pid, deadly[i]), 0);
                CHECK_EQ(reap(pid, PATIENCE_MS), deadly[i]);
        }
        stop(&f);
}

static void any_signal_ends_a_wait(void)
{
        struct fixture f;
        pid_t pid;

        if (!start(&f))
                return;
        pid = spawn_reader(in(&f, "wait"));
        (void)wait_tries(&f, 1);
        CHECK_EQ(kill(pid, SIGALRM), 0);
        CHECK_EQ(reap(pid, PATIENCE_MS), exited(EINTR));
        stop(&f);
}

static void a_hung_operation_stops_no_other(void)
{
        struct fixture f;
        pid_t pids[20];

        if (!start(&f))
                return;
        fake_set_hang(f.tree, true);
        for (size_t i = 0; i < 20; i++)
                pids[i] = spawn_reader(in(&f, "hang"));
        (void)wait_for(&f, fake_hanging, 20);
        CHECK(list_us(&f) < LISTED_US);
        CHECK_EQ(fake_hanging(f.tree), 20);
        fake_set_hang(f.tree, false);
        for (size_t i = 0; i < 20; i++)
                CHECK_EQ(reap(pids[i], PATIENCE_MS), exited(0));
        CHECK(list_us(&f) < LISTED_US);
        stop(&f);
}

static void a_retry_time_is_kept(void)
{
        uint64_t least = UINT64_MAX;
        struct fixture f;

        if (!start(&f))
                return;
        /* One that is late by itself is late each time. */
        for (unsigned i = 0; i < 20 && least >= 500 * NS_PER_MS; i++) {
                uint64_t begin = clock_mono_ns(), took;

                CHECK_EQ(reap(spawn_reader(in(&f, "later")), PATIENCE_MS), exited(0));
                took = clock_mono_ns() - begin;
                CHECK(took >= 50 * NS_PER_MS);
                least = took < least ? took : least;
        }
        CHECK(least < 500 * NS_PER_MS);
        stop(&f);
}

static void a_worker_serves_what_may_block(void)
{
        struct fixture f;
        pid_t pid;

        if (!start(&f))
                return;
        fake_set_work_ms(f.tree, 20);
        CHECK_EQ(reap(spawn_reader(in(&f, "work")), PATIENCE_MS), exited(0));
        fake_set_work_ms(f.tree, 60000);
        pid = spawn_reader(in(&f, "work"));
        (void)wait_tries(&f, 4); /* each in the loop and on a worker */
        CHECK_EQ(kill(pid, SIGKILL), 0);
        CHECK_EQ(reap(pid, KILLED_MS), SIGKILL);
        stop(&f);
}

static void who_waits_for_a_busy_worker_can_be_killed(void)
{
        struct fixture f;
        pid_t pids[12], last;

        if (!start(&f))
                return;
        fake_set_work_ms(f.tree, 60000);
        for (size_t i = 0; i < 12; i++) /* there are 8 workers */
                pids[i] = spawn_reader(in(&f, "work"));
        (void)wait_tries(&f, 20);
        last = spawn_reader(in(&f, "work"));
        (void)wait_tries(&f, 21);
        CHECK_EQ(kill(last, SIGKILL), 0);
        CHECK_EQ(reap(last, KILLED_MS), SIGKILL);
        for (size_t i = 0; i < 12; i++)
                CHECK_EQ(kill(pids[i], SIGKILL), 0);
        for (size_t i = 0; i < 12; i++)
                CHECK_EQ(reap(pids[i], KILLED_MS), SIGKILL);
        stop(&f);
}

/* Turns follow each other without a pause, while a child waits for each next one: a lost wake
 * would stop it. */
static void no_wake_is_lost(void)
{
        uint64_t hurry_ns = clock_after(PATIENCE_MS * NS_PER_MS); /* where each sleep takes long */
        struct fixture f;
        pid_t pids[4];

        if (!start(&f))
                return;
        for (size_t i = 0; i < 4; i++) {
                pids[i] = start_child();
                if (pids[i] == 0) {
                        int fd = open(in(&f, "turn"), O_RDONLY | O_CLOEXEC);
                        long seen = 0;
                        char text[32] = "";

                        (void)alarm(0);
                        while (seen < 20000) {
                                ssize_t n = pread(fd, text, sizeof(text) - 1, seen);

                                if (n <= 0)
                                        _exit(1);
                                text[n] = '\0';
                                seen = strtol(text, NULL, 10);
                        }
                        _exit(0);
                }
        }
        for (unsigned i = 0; i < 20000; i++) {
                fake_turn(f.tree);
                if (i % 3 == 0 && clock_mono_ns() < hurry_ns)
                        (void)usleep(i % 7);
        }
        for (size_t i = 0; i < 4; i++)
                if (!CHECK_EQ(reap(pids[i], PATIENCE_MS / 2), exited(0)))
                        (void)kill(pids[i], SIGKILL);
        stop(&f);
}

static void poll_is_woken(void)
{
        struct fixture f;
        pid_t pid;

        if (!start(&f))
                return;
        pid = start_child();
        if (pid == 0) {
                struct pollfd fd = {.fd = open(in(&f, "block"), O_RDONLY | O_CLOEXEC),
                                    .events = POLLIN};

                _exit(poll(&fd, 1, 2 * PATIENCE_MS) == 1 && fd.revents == POLLIN ? 0 : 1);
        }
        CHECK_EQ(reap(pid, 200), -1);
        fake_open_gate(f.tree);
        CHECK_EQ(reap(pid, PATIENCE_MS), exited(0));
        stop(&f);
}

struct inval_job {
        struct fixture *f;
        uint64_t parent;
        atomic_bool is_done;
};

static void *run_inval(void *arg)
{
        struct inval_job *job = arg;
        const struct tree_events *e = session_events(job->f->session);

        e->inval_entry(e->ctx, job->parent, "slow");
        atomic_store(&job->is_done, true);
        return NULL;
}

static void an_invalidation_waits_for_the_parked_lookup(void)
{
        struct inval_job job = {0}, other = {0};
        const struct tree_events *e;
        pthread_t threads[2];
        struct fixture f;
        pid_t pid;

        if (!start(&f))
                return;
        e = session_events(f.session);
        job.f = other.f = &f;
        job.parent = FAKE_DIR;
        other.parent = FAKE_MANY_DIR;
        CHECK_EQ(reap(spawn_reader(in(&f, "dir/quick")), PATIENCE_MS), exited(0));
        CHECK_EQ(reap(spawn_reader(in(&f, "many/1")), PATIENCE_MS), exited(0));
        pid = spawn_reader(in(&f, "dir/slow"));
        (void)wait_for(&f, fake_stopped, 1); /* the lookup is there; soon it is parked */
        CHECK_EQ(reap(pid, 200), -1);
        CHECK_EQ(pthread_create(&threads[0], NULL, run_inval, &job), 0);
        CHECK_EQ(pthread_create(&threads[1], NULL, run_inval, &other), 0);
        e->inval_node(e->ctx, FAKE_DIR, true); /* attributes alone don't wait */
        CHECK_EQ(pthread_join(threads[1], NULL), 0);
        (void)usleep(100000);
        CHECK(!atomic_load(&job.is_done));
        CHECK(list_us(&f) < LISTED_US);
        fake_open_gate(f.tree);
        CHECK_EQ(reap(pid, PATIENCE_MS), exited(0));
        CHECK_EQ(pthread_join(threads[0], NULL), 0);
        stop(&f);
}

static void an_invalidation_does_not_outlive_the_mount(void)
{
        struct inval_job job = {0};
        struct fixture f;
        pthread_t thread;
        pid_t pid;

        if (!start(&f))
                return;
        job.f = &f;
        job.parent = FAKE_DIR;
        pid = spawn_reader(in(&f, "dir/slow"));
        (void)wait_for(&f, fake_stopped, 1);
        CHECK_EQ(reap(pid, 200), -1);
        CHECK_EQ(pthread_create(&thread, NULL, run_inval, &job), 0);
        (void)usleep(50000);
        session_stop(f.session);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK(reap(pid, PATIENCE_MS) > 0);
        finish(&f);
}

/* How long it took. */
static uint64_t end_with_open_files(void)
{
        struct fixture f;
        uint64_t begin;
        pid_t pids[10];

        if (!start(&f))
                return 0;
        for (size_t i = 0; i < 10; i++)
                pids[i] = spawn_reader(in(&f, "block"));
        (void)wait_tries(&f, 10);
        begin = clock_mono_ns();
        session_stop(f.session);
        for (size_t i = 0; i < 10; i++)
                CHECK_EQ(reap(pids[i], PATIENCE_MS), exited(ENOTCONN));
        finish(&f);
        return clock_mono_ns() - begin;
}

static void the_end_comes_within_a_second_with_open_files(void)
{
        uint64_t least = UINT64_MAX;

        /* One that is late by itself is late each time. */
        for (unsigned i = 0; i < 10 && least >= NS_PER_S; i++) {
                uint64_t took = end_with_open_files();

                least = took < least ? took : least;
        }
        CHECK(least < NS_PER_S);
}

static void an_unmount_by_others_ends_it(void)
{
        struct fixture f;
        struct mount_entry e;

        if (!start(&f))
                return;
        CHECK_EQ(mountpoint_find(f.path, &e), 1);
        CHECK_EQ(mountpoint_detach(f.path, &e), 0);
        finish(&f);
}

/* A mount whose connection was aborted and that nobody detached. */
static void a_dead_predecessor_is_cleared_away(void)
{
        struct fixture dead, f;
        struct mount_entry e;
        int status;
        pid_t pid;

        char path[] = "/tmp/sbxfs-unit-XXXXXX";

        if (!CHECK(mkdtemp(path)))
                return;
        pid = start_child();
        if (pid == 0) {
                if (start_on(&dead, path))
                        (void)pause(); /* until it is killed */
                _exit(1);
        }
        for (unsigned i = 0; i < 3000 && mountpoint_find(path, &e) != 1; i++)
                (void)usleep(10000);
        (void)kill(pid, SIGKILL);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(mountpoint_find(path, &e), 1);
        if (!start_on(&f, path))
                return;
        CHECK_EQ(reap(spawn_reader(in(&f, "plain")), PATIENCE_MS), exited(0));
        stop(&f);
}

static void a_living_predecessor_is_left_alone(void)
{
        struct fixture f;
        struct call c;

        if (!start(&f))
                return;
        call_init(&c, NEVER_NS);
        CHECK_EQ(mountpoint_clear(f.path, &c), -EBUSY);
        CHECK_EQ(reap(spawn_reader(in(&f, "plain")), PATIENCE_MS), exited(0));
        stop(&f);
}

static int serve(const char *path)
{
        struct fixture f;

        (void)alarm(0);
        if (!start_on(&f, path))
                return 1;
        CHECK_EQ(pthread_join(f.thread, NULL), 0);
        return 0;
}

int main(int argc, char **argv)
{
        (void)signal(SIGPIPE, SIG_IGN);
        log_setup(LOG_LEVEL_WARNING, getenv("SBXFS_DEBUG"), false);
        if (argc == 3 && strcmp(argv[1], "serve") == 0)
                return serve(argv[2]);
        if (access("/dev/fuse", R_OK | W_OK) < 0) {
                (void)fprintf(stderr, "skipped: /dev/fuse can't be opened by this user\n");
                return 77;
        }
        RUN(files_can_be_read_and_listed);
        RUN(blocked_readers_cost_no_thread);
        RUN(blocked_readers_die_at_once);
        RUN(blocked_readers_are_woken);
        RUN(a_timer_does_not_interrupt);
        RUN(kill_works_after_an_ignored_signal);
        RUN(any_signal_ends_a_wait);
        RUN(a_hung_operation_stops_no_other);
        RUN(a_retry_time_is_kept);
        RUN(a_worker_serves_what_may_block);
        RUN(who_waits_for_a_busy_worker_can_be_killed);
        RUN(no_wake_is_lost);
        RUN(poll_is_woken);
        RUN(an_invalidation_waits_for_the_parked_lookup);
        RUN(an_invalidation_does_not_outlive_the_mount);
        RUN(the_end_comes_within_a_second_with_open_files);
        RUN(an_unmount_by_others_ends_it);
        RUN(a_dead_predecessor_is_cleared_away);
        RUN(a_living_predecessor_is_left_alone);
        return check_result();
}
