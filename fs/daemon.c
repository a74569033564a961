/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/base/lock.h"
#include "transport/base/log.h"

/* In the parent; doesn't return. */
static _Noreturn void wait_for_child(pid_t child, int ready)
{
        char byte;
        int status;
        ssize_t n;

        do
                n = read(ready, &byte, 1);
        while (n < 0 && errno == EINTR);
        if (n == 1)
                _exit(EXIT_SUCCESS);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;
        _exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : EXIT_FAILURE);
}

int daemon_start(struct daemon *d)
{
        int ends[2];
        pid_t child;

        if (pipe2(ends, O_CLOEXEC) < 0)
                return -errno;
        child = fork();
        if (child < 0) {
                int r = -errno;

                (void)close(ends[0]); /* nothing was written */
                (void)close(ends[1]); /* likewise */
                return r;
        }
        if (child > 0) {
                (void)close(ends[1]); /* so that the read ends with the child */
                wait_for_child(child, ends[0]);
        }
        (void)close(ends[0]); /* the parent's */
        (void)setsid(); /* a child that was just forked leads no group: it can't fail */
        d->ready = ends[1];
        return 0;
}

void daemon_ready(struct daemon *d)
{
        int null;

        if (d->ready < 0)
                return;
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        for (int fd = 0; null >= 0 && fd < 3; fd++)
                if (dup2(null, fd) < 0)
                        log_warning("/dev/null: %s, ignoring", errno_name(errno));
        if (null > 2)
                (void)close(null); /* nothing was written */
        if (write(d->ready, "", 1) != 1)
                log_debug("main", "nobody waits for the mount, ignoring");
        (void)close(d->ready); /* the byte is out */
        d->ready = -1;
}

/* ---- signals ---- */

struct signal_watch {
        sigset_t signals; /* fixed */
        struct mutex lock; /* held while stop runs: daemon_forget_stop waits for its end */
        void (*stop)(void *ctx) GUARDED_BY(lock); /* NULL: forgotten */
        void *ctx GUARDED_BY(lock);
};

static void *watch_signals(void *arg)
{
        struct signal_watch *w = arg;
        int signal;

        while (sigwait(&w->signals, &signal) != 0)
                ;
        log_info("signal %d: unmounting", signal);
        mutex_lock(&w->lock);
        if (w->stop)
                w->stop(w->ctx);
        mutex_unlock(&w->lock);
        while (sigwait(&w->signals, &signal) != 0)
                ;
        log_warning("ended by a second signal; what is left goes on with the next mount");
        _exit(EXIT_FAILURE);
}

void daemon_forget_stop(struct daemon *d)
{
        if (!d->watch)
                return;
        mutex_lock(&d->watch->lock);
        d->watch->stop = NULL;
        mutex_unlock(&d->watch->lock);
}

int daemon_watch_signals(struct daemon *d, void (*stop)(void *ctx), void *ctx)
{
        /* the thread's, to the end of the process */
        struct signal_watch *w = calloc(1, sizeof(*w));
        pthread_t thread;
        int r;

        if (!w)
                return -ENOMEM;
        mutex_init(&w->lock);
        mutex_lock(&w->lock);
        w->stop = stop;
        w->ctx = ctx;
        mutex_unlock(&w->lock);
        (void)sigemptyset(&w->signals); /* these take any set and any known signal */
        (void)sigaddset(&w->signals, SIGTERM);
        (void)sigaddset(&w->signals, SIGINT);
        (void)sigaddset(&w->signals, SIGHUP);
        (void)signal(SIGPIPE, SIG_IGN); /* likewise */
        r = pthread_sigmask(SIG_BLOCK, &w->signals, NULL);
        if (r == 0)
                r = pthread_create(&thread, NULL, watch_signals, w);
        if (r != 0) {
                mutex_done(&w->lock);
                free(w);
                return -r;
        }
        d->watch = w;
        (void)pthread_detach(thread); /* it is ours and joinable */
        return 0;
}
