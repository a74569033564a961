/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an address to a session: dial, handshake, host key, login; in the caller's thread. The
 * session's own thread starts last.
 */

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/log.h"
#include "transport/base/random.h"
#include "transport/ssh/auth.h"
#include "transport/ssh/errors.h"
#include "transport/ssh/hostkey.h"
#include "transport/ssh/session.h"

#define DIALS_MAX 4 /* a server that is busy with others' logins hangs up on some */
#define BANNER_MAX 256

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int init_result;

static void init_library(void)
{
        init_result = libssh2_init(0);
}

static struct ssh *ssh_new(const struct ssh_target *t)
{
        struct ssh *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        atomic_init(&s->refs, 1);
        mutex_init(&s->lock);
        cond_init(&s->changed);
        list_init(&s->fresh);
        s->proxy = (struct dial_proxy){.fd = -1, .log_fd = -1, .pidfd = -1};
        s->sock.fd = s->sock.log_fd = -1;
        list_init(&s->sock.blocks);
        s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->wake_fd < 0 ||
            asprintf(&s->name, "%s port %u", t->host, t->port ? t->port : 22) < 0) {
                s->name = NULL;
                ssh_unref(s);
                return NULL;
        }
        return s;
}

static int dial(struct ssh *s, const struct ssh_target *t, struct call *c)
{
        int fd = -1, log_fd = -1, r;

        if (t->proxy) {
                r = dial_proxy(t->proxy, t->proxy_env, c, &s->proxy);
                fd = s->proxy.fd;
                log_fd = s->proxy.log_fd;
        } else {
                r = dial_host(t->host, t->port ? t->port : 22, c, &fd);
        }
        if (r < 0)
                return r;
        r = sock_init(&s->sock, fd, log_fd);
        return r < 0 ? call_fail_errno(c, r, "%s", s->name) : 0;
}

static int handshake(struct ssh *s, struct hostkey *h, struct call *c)
{
        struct sock *k = &s->sock;
        uint64_t since = clock_mono_ns();
        char *text = NULL, why[256];
        int r = hostkey_prefer(h, k->session, c), rc;

        if (r < 0)
                return r;
        SOCK_AWAIT(k, c, r, rc, libssh2_session_handshake(k->session, k->fd));
        if (r < 0)
                return r;
        if (rc == 0) {
                log_debug("ssh", "%s: handshake took %llu us", s->name,
                          (unsigned long long)((clock_mono_ns() - since) / NS_PER_US));
                return 0;
        }
        (void)libssh2_session_last_error(k->session, &text, NULL, 0);
        sock_reason(k, why, sizeof(why));
        if (ssh_errno(rc) == -EHOSTUNREACH)
                return call_fail(c, -EHOSTUNREACH, "%s", why);
        if (rc == LIBSSH2_ERROR_KEX_FAILURE && !libssh2_version(0x010b00))
                return call_fail(
                        c, -EPROTO,
                        "no algorithm in common with the server (%s); a server whose only "
                        "host key is RSA needs libssh2 1.11, this is %s: give it an ed25519 "
                        "host key, or use transport=openssh",
                        text ? text : "", libssh2_version(0));
        return call_fail(c, ssh_errno(rc), "handshake: %s", text ? text : "");
}

static int keep_banner(struct ssh *s)
{
        const char *banner = libssh2_session_banner_get(s->sock.session);
        char text[BANNER_MAX];

        escape_text(banner ? banner : "", banner ? strlen(banner) : 0, text, sizeof(text));
        s->banner = strdup(text);
        return s->banner ? 0 : -ENOMEM;
}

/* One connection, all the way. *ret_is_early: it ended before the server had said anything. */
static int try_once(const struct ssh_target *t, struct hostkey *h, struct call *c, struct ssh **ret,
                    bool *ret_is_early)
{
        struct ssh *s = ssh_new(t);
        int r;

        *ret_is_early = false;
        h->is_other = false;
        if (!s)
                return call_fail_errno(c, -ENOMEM, "connect to %s", t->host);
        r = dial(s, t, c);
        if (r == 0) {
                r = handshake(s, h, c);
                *ret_is_early = r == -EHOSTUNREACH && !t->proxy &&
                                !libssh2_session_banner_get(s->sock.session);
                if (r == 0)
                        r = hostkey_check(h, s->sock.session, c);
                if (r == 0)
                        r = auth_login(&s->sock, t, c);
                if (r == 0 && (keep_banner(s) < 0 || ssh_start(s) < 0))
                        r = call_fail_errno(c, -ENOMEM, "connecting");
                if (r < 0)
                        (void)call_wrap(c, r, "%s", s->name);
        }
        if (r < 0) {
                ssh_unref(s);
                return r;
        }
        *ret = s;
        return 0;
}

/* 50 to 250 ms, not the same for those that were hung up on together. */
static void pause_briefly(const struct call *c)
{
        uint8_t random = 0;
        uint64_t span;
        struct timespec t;

        (void)random_bytes(&random, 1); /* any will do */
        span = 50 * NS_PER_MS + random * 200 * NS_PER_MS / 255;
        if (c->deadline_ns < clock_after(span))
                return;
        t = clock_timespec(span);
        (void)nanosleep(&t, NULL); /* sooner does no harm */
}

static int connect_known(const struct ssh_target *t, struct hostkey *h, struct call *c,
                         struct ssh **ret)
{
        char pinned[CALL_SENTENCE_MAX] = ""; /* what there was to say of the first key */
        bool is_early;
        int r;

        for (unsigned dials = 1;; dials++) {
                r = try_once(t, h, c, ret, &is_early);
                if (r == 0)
                        return 0;
                if (h->is_other) { /* the pinned key may be one of another type */
                        if (!pinned[0])
                                memcpy(pinned, c->sentence, sizeof(pinned));
                        memcpy(h->excluded[h->excluded_count++], h->seen, sizeof(h->seen));
                } else if (!is_early || dials >= DIALS_MAX) {
                        break;
                } else {
                        pause_briefly(c);
                }
        }
        if (pinned[0] && (r == -EPROTO || r == -EPERM))
                return call_fail(c, -EPERM, "%s", pinned);
        return r;
}

int ssh_connect(const struct ssh_target *target, struct call *c, struct ssh **ret)
{
        struct hostkey h;
        int r;

        assert(target->host && target->user);
        (void)pthread_once(&once, init_library); /* can't fail */
        if (init_result != 0)
                return call_fail(c, -EPROTO, "libssh2 can't be initialised");
        r = hostkey_init(&h, target, c);
        if (r < 0)
                return r;
        r = connect_known(target, &h, c, ret);
        hostkey_done(&h);
        return r;
}
