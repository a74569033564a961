/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daytona provider: sandboxes of Daytona, or of whoever speaks its API. Two services take part:
 * the API (REST, the account's key), and in each sandbox the toolbox, behind a proxy that takes the
 * same key. A sandbox is ours by its labels, and by its name, which is unique where lists lag:
 *
 *      sbxfs-KEY                               its name
 *      sbxfs-key, sbxfs-name, sbxfs-owner      labels: whose it is
 *      sbxfs-workdir                           where fs/ is, where said
 *
 * The toolbox's own commands merge or mangle what they print, its files have no POSIX meaning and
 * its sessions no end of input. So a static program of ours is put there (remote/remote.h), below
 * DAYTONA_DIR since the toolbox runs as the sandbox's user. Streams to it go by the toolbox's
 * terminals, over a WebSocket, as frames (inside/carry.h).
 *
 * Its parts: daytona.c (the table, the instance), config.c (what the operator said), api.c (the
 * API), body.c (a spec as its JSON), states.c (what it says of a sandbox), box.c (made, found,
 * looked at), life.c (its changes), toolbox.c (requests to the toolbox), terminal.c (a program
 * there as a stream).
 *
 * Time:    what the toolbox is asked would put off a sandbox's end; ours says that it isn't to.
 *          While the sandbox is in use the keeper says so, by a call of its own.
 * Threads: any, everywhere; one of the instance tells terminals that we are still here.
 * Source:  github.com/daytonaio/daytona v0.190.0, npm @daytonaio/sdk 0.218.0 (August 2026).
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "providers/daytona/config.h"
#include "providers/daytona/states.h"
#include "providers/provider.h"
#include "providers/remote/remote.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

struct http;
struct json;

#define DAYTONA_DIR "/tmp/.sbxfs"

extern const struct provider_ops daytona_ops;

struct daytona_provider {
        struct remote remote;
        /* fixed after open */
        struct http *api;
        struct daytona_config config;
        pthread_t pinger;
        bool has_pinger;

        struct mutex lock; /* a leaf, but for the terminals' own */
        struct cond changed;
        /* guarded by lock */
        struct list terminals; /* struct terminal */
        bool is_closing;
};

static inline struct daytona_provider *daytona_of(struct provider *p)
{
        return container_of(remote_of(p), struct daytona_provider, remote);
}

struct daytona_box {
        struct remote_box remote;

        struct mutex lock;
        /* guarded by lock; once set, fixed until the box is freed: */
        struct http *toolbox;

        _Atomic(enum daytona_pause) can_pause; /* its class can */
        atomic_bool pauses_itself; /* at its time's end, else it stops */
        atomic_bool has_no_touch; /* the API has no call for that it is in use */
};

static inline struct daytona_box *daytona_box_of(struct remote_box *b)
{
        return container_of(b, struct daytona_box, remote);
}

static inline struct daytona_provider *daytona_of_box(struct daytona_box *b)
{
        return container_of(b->remote.remote, struct daytona_provider, remote);
}

/* ---- box.c ---- */

int daytona_box_create(struct provider *p, struct call *c, const struct spec *spec,
                       struct box **ret);
int daytona_box_list(struct provider *p, struct call *c, struct box_sink *to);
int daytona_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                       struct box **ret);
int daytona_look(struct remote_box *b, struct call *c, struct box_status *ret);
void daytona_box_free(struct remote_box *b);
/* An answer about it: what kind it is, where its toolbox is. -EPROTO, -ENOMEM. */
int daytona_learn(struct daytona_box *b, struct call *c, const struct json *sandbox);
/* Its toolbox; asks the API the first time. Borrowed. */
int daytona_toolbox(struct daytona_box *b, struct call *c, struct http **ret);

/* ---- life.c ---- */

int daytona_put_off(struct remote_box *b, struct call *c);
uint64_t daytona_timeout_s(const struct spec *spec);
int daytona_retime(struct remote_box *b, struct call *c);
int daytona_pause(struct remote_box *b, struct call *c);
int daytona_resume(struct remote_box *b, struct call *c);
int daytona_stop(struct remote_box *b, struct call *c);
int daytona_remove(struct remote_box *b, struct call *c);
/* Until it runs; `spec`, NULL none: who hears of its phases. -EIO it can't. */
int daytona_wait_started(struct daytona_box *b, struct call *c, const struct spec *spec);

/* ---- toolbox.c, terminal.c: remote_ops ---- */

int daytona_run(struct remote_box *b, struct call *c, const char *user,
                const struct remote_program *p, struct buf *out, int *ret_code);
int daytona_upload(struct remote_box *b, struct call *c, const char *user, const char *to,
                   struct http_source *from);
int daytona_download(struct remote_box *b, struct call *c, const char *user, const char *from,
                     const struct http_range *range, struct http_sink *sink);
int daytona_open(struct remote_box *b, struct call *c, const char *user,
                 const struct remote_program *p, const struct stream_events *events,
                 struct stream **ret);
/* Tell every terminal that we are still here; the instance's thread, each CARRY_PING_S. */
void daytona_ping_all(struct daytona_provider *d);
