/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TCP proxy that is a longer way: each byte arrives a fixed time after it was sent, with as much
 * on the way as the two ends like (up to ROOM). Several connections, one thread.
 *
 *      delay TARGET_PORT ONE_WAY_US
 *
 * Both ends are 127.0.0.1. It prints "port N" and then obeys lines on its standard input, each
 * answered by "ok": "cut" resets all connections; "hole" lets nothing through any more, as a cable
 * that was pulled; "cut N" and "hole N" do so when N more bytes have gone to the target; "thaw" ends
 * a hole, and nothing is lost; "delay US"; "count" answers "ok UP DOWN", the bytes that were carried.
 * It ends with its standard input.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM (32u << 20) /* bytes on the way in one direction */
#define MARKS 65536u
#define PAIRS 64
#define PIECE (256u << 10)

struct mark { /* what came in at one time */
        uint64_t due_ns;
        uint64_t end; /* of the bytes, counted from the first that ever came */
};

struct way {
        int from, to;
        char *data; /* ring of ROOM */
        struct mark *marks; /* ring of MARKS */
        uint64_t in, out; /* bytes ever read and written */
        uint64_t first, last; /* marks ever used up and made */
        bool is_ended, was_ended; /* end of input seen; passed on */
};

struct pair {
        struct way up, down;
        bool is_open;
};

static struct pair pairs[PAIRS];
static uint64_t delay_ns, carried_up, carried_down;
static bool is_hole;
static uint64_t stop_at = UINT64_MAX; /* of carried_up */
static bool stop_is_hole;

static uint64_t now(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
        perror(what);
        exit(1);
}

static void pair_close(struct pair *p, bool by_reset)
{
        struct linger l = {.l_onoff = by_reset};

        (void)setsockopt(p->up.from, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
        (void)setsockopt(p->up.to, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
        (void)close(p->up.from);
        (void)close(p->up.to);
        free(p->up.data);
        free(p->down.data);
        free(p->up.marks);
        free(p->down.marks);
        *p = (struct pair){0};
}

static void way_init(struct way *w, int from, int to)
{
        *w = (struct way){.from = from, .to = to};
        w->data = malloc(ROOM);
        w->marks = calloc(MARKS, sizeof(*w->marks));
        if (!w->data || !w->marks)
                die("malloc");
}

static int prepare(int fd)
{
        int on = 1;

        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                die("fcntl");
        return fd;
}

static void pair_open(int fd, const struct sockaddr_in *target)
{
        int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct pair *p = NULL;

        for (unsigned i = 0; i < PAIRS && !p; i++)
                if (!pairs[i].is_open)
                        p = &pairs[i];
        if (!p || to < 0 || connect(to, (const struct sockaddr *)target, sizeof(*target)) < 0) {
                (void)close(fd);
                if (to >= 0)
                        (void)close(to);
                return;
        }
        p->is_open = true;
        way_init(&p->up, prepare(fd), prepare(to));
        way_init(&p->down, to, fd);
}

/* What has come, into the ring, with the time when it may leave. False: the connection is over. */
static bool way_take(struct way *w)
{
        size_t at = w->in % ROOM, room = ROOM - (w->in - w->out);
        struct mark *newest = &w->marks[(w->last - 1) % MARKS];
        uint64_t due = now() + delay_ns;
        ssize_t n;

        if (room > ROOM - at)
                room = ROOM - at;
        if (room > PIECE)
                room = PIECE;
        n = recv(w->from, w->data + at, room, 0);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR;
        if (n == 0) {
                w->is_ended = true;
                return true;
        }
        (void)setsockopt(w->from, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
        w->in += (uint64_t)n;
        if (w->last > w->first && due - newest->due_ns < 20000) {
                newest->end = w->in;
                return true;
        }
        w->marks[w->last++ % MARKS] = (struct mark){due, w->in};
        return true;
}

static bool way_is_due(const struct way *w, uint64_t at)
{
        return w->last > w->first && w->marks[w->first % MARKS].due_ns <= at;
}

static bool way_give(struct way *w, uint64_t *carried)
{
        while (way_is_due(w, now())) {
                uint64_t end = w->marks[w->first % MARKS].end;
                size_t at = w->out % ROOM, size = end - w->out;
                ssize_t n;

                if (size > ROOM - at)
                        size = ROOM - at;
                if (carried == &carried_up && size > stop_at - carried_up)
                        size = stop_at - carried_up;
                if (size == 0)
                        return true; /* stop() is next */
                n = send(w->to, w->data + at, size, MSG_NOSIGNAL);
                if (n < 0)
                        return errno == EAGAIN || errno == EINTR;
                w->out += (uint64_t)n;
                *carried += (uint64_t)n;
                if (w->out == end)
                        w->first++;
        }
        if (w->is_ended && !w->was_ended && w->in == w->out) {
                (void)shutdown(w->to, SHUT_WR);
                w->was_ended = true;
        }
        return true;
}

static short way_events(const struct way *w, uint64_t at, bool is_output)
{
        if (is_hole)
                return 0;
        if (is_output)
                return way_is_due(w, at) ? POLLOUT : 0;
        return !w->is_ended && w->in - w->out < ROOM && w->last - w->first < MARKS ? POLLIN : 0;
}

static void pair_move(struct pair *p)
{
        if (!way_give(&p->up, &carried_up) || !way_give(&p->down, &carried_down))
                pair_close(p, true);
        else if (p->up.was_ended && p->down.was_ended)
                pair_close(p, false);
}

static void cut(void)
{
        for (unsigned i = 0; i < PAIRS; i++)
                if (pairs[i].is_open)
                        pair_close(&pairs[i], true);
}

/* So many bytes have gone up that it is time. */
static void stop(void)
{
        if (carried_up < stop_at)
                return;
        stop_at = UINT64_MAX;
        if (stop_is_hole)
                is_hole = true;
        else
                cut();
}

static void obey(const char *line)
{
        unsigned long us, bytes;

        if (strcmp(line, "cut") == 0) {
                cut();
        } else if (sscanf(line, "cut %lu", &bytes) == 1 || sscanf(line, "hole %lu", &bytes) == 1) {
                stop_at = carried_up + bytes;
                stop_is_hole = line[0] == 'h';
        } else if (strcmp(line, "hole") == 0) {
                is_hole = true;
        } else if (strcmp(line, "thaw") == 0) {
                is_hole = false;
                stop_at = UINT64_MAX;
        } else if (sscanf(line, "delay %lu", &us) == 1) {
                delay_ns = us * 1000;
        } else if (strcmp(line, "count") == 0) {
                (void)printf("ok %llu %llu\n", (unsigned long long)carried_up,
                             (unsigned long long)carried_down);
                return;
        } else {
                (void)printf("what is \"%s\"?\n", line);
                return;
        }
        (void)printf("ok\n");
}

static void take_orders(void)
{
        static char text[4096];
        static size_t size;
        ssize_t n = read(0, text + size, sizeof(text) - 1 - size);
        char *end;

        if (n <= 0)
                exit(0);
        size += (size_t)n;
        text[size] = '\0';
        while ((end = strchr(text, '\n'))) {
                *end = '\0';
                obey(text);
                size -= (size_t)(end + 1 - text);
                memmove(text, end + 1, size + 1);
        }
        (void)fflush(stdout);
}

static int listen_somewhere(void)
{
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(at);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, 64) < 0 ||
            getsockname(fd, (struct sockaddr *)&at, &size) < 0)
                die("listen");
        (void)printf("port %u\n", (unsigned)ntohs(at.sin_port));
        (void)fflush(stdout);
        return fd;
}

/* Until when nothing is due. */
static struct timespec *wait_time(struct timespec *t)
{
        uint64_t at = now(), next = UINT64_MAX;

        for (unsigned i = 0; i < PAIRS && !is_hole; i++) {
                const struct way *ways[] = {&pairs[i].up, &pairs[i].down};

                for (unsigned k = 0; k < 2 && pairs[i].is_open; k++) {
                        const struct way *w = ways[k];
                        uint64_t due = w->marks[w->first % MARKS].due_ns;

                        if (w->last > w->first && due > at && due < next)
                                next = due;
                }
        }
        if (next == UINT64_MAX)
                return NULL;
        t->tv_sec = (time_t)((next - at) / 1000000000u);
        t->tv_nsec = (long)((next - at) % 1000000000u);
        return t;
}

int main(int argc, char **argv)
{
        struct sockaddr_in target = {.sin_family = AF_INET};
        static struct pollfd fds[2 + 2 * PAIRS];
        int listener;

        if (argc != 3)
                return 2;
        target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        target.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
        delay_ns = strtoull(argv[2], NULL, 10) * 1000;
        (void)prctl(PR_SET_TIMERSLACK, 1);
        listener = listen_somewhere();
        for (;;) {
                uint64_t at = now();
                struct timespec t;

                fds[0] = (struct pollfd){.fd = 0, .events = POLLIN};
                fds[1] = (struct pollfd){.fd = listener, .events = POLLIN};
                for (unsigned i = 0; i < PAIRS; i++) {
                        const struct way *up = &pairs[i].up, *down = &pairs[i].down;
                        short a = 0, b = 0;

                        if (pairs[i].is_open) {
                                a = way_events(up, at, false) | way_events(down, at, true);
                                b = way_events(down, at, false) | way_events(up, at, true);
                        }
                        fds[2 + 2 * i] = (struct pollfd){a ? up->from : -1, a, 0};
                        fds[3 + 2 * i] = (struct pollfd){b ? up->to : -1, b, 0};
                }
                if (ppoll(fds, 2 + 2 * PAIRS, wait_time(&t), NULL) < 0 && errno != EINTR)
                        die("ppoll");
                if (fds[0].revents)
                        take_orders();
                if (fds[1].revents) {
                        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

                        if (fd >= 0)
                                pair_open(fd, &target);
                }
                for (unsigned i = 0; i < PAIRS && !is_hole; i++) {
                        struct pair *p = &pairs[i];

                        if (p->is_open && (fds[2 + 2 * i].revents & ~POLLOUT) && !way_take(&p->up))
                                pair_close(p, true);
                        if (p->is_open && (fds[3 + 2 * i].revents & ~POLLOUT) &&
                            !way_take(&p->down))
                                pair_close(p, true);
                        if (p->is_open)
                                pair_move(p);
                        stop();
                }
        }
}
