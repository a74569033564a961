/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What providers have in common whose sandboxes are a service's, reached over HTTP: a sandbox that
 * is ours by its labels, whose end is put off while it is used, and in which a static program of
 * ours serves commands and files (docker/init.c, inside/).
 *
 *      /.sbxfs/init            the program, 0755
 *      /.sbxfs/sock            where the holder listens, root's
 *
 * Where that can't run, the service itself runs commands (direct.h), and a shell serves files;
 * where no stream can be had of a program either, both by one short script after the other
 * (polled.h, scripts.h).
 *
 * A service says in struct remote_ops how it is asked; its own structs begin with these. Most of
 * its table is then the functions below.
 *
 * Its parts: remote.c (the instance, the keeper), box.c and life.c (a sandbox), made.c (one whose
 * creation's answer was lost), put.c (our program), inside.c (commands and files); settings.c (what
 * the operator and a spec say), words.c and write.c (what services are told and say alike),
 * sender.c (input that goes by requests).
 *
 * Time:    a sandbox's end is absolute there; it is put off at half-time while it is in use.
 * Threads: any, everywhere; the keeper connects again where a stream was lost, and renews.
 * Locks:   the provider's, then a box's; none is held across I/O.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"
#include "providers/shell/runner.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/stream.h"

struct buf;
struct http_range;
struct http_sink;
struct http_source;
struct inside_files;
struct remote_box;
struct talk;

#define REMOTE_DIR "/.sbxfs" /* ours, in each sandbox, where the service names no other */
#define REMOTE_INIT REMOTE_DIR "/init"
#define REMOTE_PATH_SIZE 80
#define REMOTE_ROOT "root" /* who starts our program */

/* A program to be started in a sandbox. */
struct remote_program {
        const char *const *argv; /* NULL-terminated */
        const char *cwd; /* NULL: the user's own */
        const char *env[4][2]; /* ends with NULL */
        bool has_stdin;
};

/* ---- what a service says; all calls may block, none is called with a lock held ---- */

struct remote_ops {
        const char *name; /* topic of its log lines */
        /* Ours, in each sandbox, where nothing of ours can be root's; NULL: REMOTE_DIR. */
        const char *dir;
        /*
         * What the API says of it now; -ENODEV it isn't there, by the API's own word. Whatever else
         * it learns goes into `asked_user`, `asked_workdir` (remote_asked).
         */
        int (*look)(struct remote_box *b, struct call *c, struct box_status *ret);
        int (*put_off)(struct remote_box *b, struct call *c); /* its end, by what was asked for */
        uint64_t (*timeout_s)(const struct spec *spec); /* as the service holds it */
        /* It is told another b->timeout_s (0: none), from now on. NULL: put_off does that, too. */
        int (*retime)(struct remote_box *b, struct call *c);
        /* Each until it is so. Already so is success; remove: -ENODEV, too. */
        int (*pause)(struct remote_box *b, struct call *c);
        int (*resume)(struct remote_box *b, struct call *c);
        int (*stop)(struct remote_box *b, struct call *c); /* NULL: the table has none */
        int (*remove)(struct remote_box *b, struct call *c);
        /* A program as a stream; `user` NULL: the sandbox's own, REMOTE_ROOT the mightiest. */
        int (*open)(struct remote_box *b, struct call *c, const char *user,
                    const struct remote_program *p, const struct stream_events *events,
                    struct stream **ret);
        /*
         * One that is short, to its end: its stdout into `out`, the start of its stderr into the
         * call's sentence where *ret_code isn't 0. It bears to run twice.
         */
        int (*run)(struct remote_box *b, struct call *c, const char *user,
                   const struct remote_program *p, struct buf *out, int *ret_code);
        /* A file, over what is there, in place; the directory of a new one may be missing. */
        int (*upload)(struct remote_box *b, struct call *c, const char *user, const char *to,
                      struct http_source *from);
        /* Of a regular file `range` into `sink`. */
        int (*download)(struct remote_box *b, struct call *c, const char *user, const char *from,
                        const struct http_range *range, struct http_sink *sink);
        /* The struct of which `b` is the head; remote_box_done first. */
        void (*free)(struct remote_box *b);
        bool has_no_eof; /* `open` can't end a program's input */
        uint64_t half_ns; /* of the span to which put_off leads where the box names none */
};

/* ---- the instance ---- */

struct remote {
        struct provider base;
        /* fixed after open */
        const struct remote_ops *ops;
        const char *owner; /* borrowed from the provider_config, as are: */
        const char *helper_dir;
        struct provider_listener listener;
        bool has_no_agent; /* files = shell */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct list boxes; /* struct remote_box */
        bool is_closing;
        pthread_t keeper; /* fixed after remote_start */
};

static inline struct remote *remote_of(struct provider *p)
{
        return container_of(p, struct remote, base);
}

void remote_init(struct remote *p, const struct remote_ops *ops,
                 const struct provider_config *config);
/* The keeper starts; remote_stop, once it was started, ends it. */
int remote_start(struct remote *p, struct call *c);
void remote_stop(struct remote *p);
void remote_done(struct remote *p);

/* ---- a sandbox ---- */

struct remote_box {
        struct box base;
        struct remote *remote;
        char key[32]; /* "" when it was adopted */
        _Atomic(uint64_t) timeout_s; /* 0: not ours to say */
        struct talk *talk; /* fixed after init, as is: */
        struct inside_files *files;
        struct shell_runner by_scripts; /* scripts.h */
        /* guarded by the provider's lock */
        struct list link;
        uint64_t due_ns; /* when the keeper looks after it; NEVER_NS */
        struct call *tending; /* the keeper's, while it does */
        bool is_released;
        enum box_state listed; /* what a list said of it; BOX_UNKNOWN: nothing new */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock; once set, fixed until the box is freed: */
        char *user; /* as whom commands run */
        char *workdir;
        /* guarded by lock */
        char asked_user[64]; /* of its labels; "": the service's own */
        char asked_workdir[256]; /* likewise; "" */
        bool has_asked; /* these two are known */
        char refusal[sizeof(((struct box_status *)NULL)->sentence)]; /* of its time-out; "" none */
        bool is_changing; /* pause, resume or destroy is at work; one at a time */
        enum box_state state; /* as last seen or made */

        uint64_t held_s; /* the time-out that the service took last; the keeper's only */
        atomic_bool is_foreign; /* our program can't run there */
        atomic_bool is_cold; /* it was joined: what files need is to be started, too */
        atomic_bool is_untold; /* the service is to be told its time-out, used or not */
        atomic_uint direct_execs; /* commands that run without it (direct.h) */
        _Atomic(uint64_t) used_ns, renewed_ns; /* CLOCK_MONOTONIC; 0 never */
};

static inline struct remote_box *remote_box_of(struct box *b)
{
        return container_of(b, struct remote_box, base);
}

/*
 * `b` is zeros. From here on the keeper knows it. `spec` NULL: adopted; `timeout_s` as the service
 * is told. -ENOMEM: the caller frees the struct, nothing else.
 */
int remote_box_init(struct remote_box *b, struct remote *p, const char *id, const struct spec *spec,
                    uint64_t timeout_s);
/* Of ops->free. */
void remote_box_done(struct remote_box *b);

/* The keeper looks after it now. */
void remote_wake(struct remote_box *b);
/* What its labels or its spec ask for; the first word stands. What can't be is passed over. */
void remote_asked(struct remote_box *b, const char *user, const char *workdir);
/* Its state, as made or seen by us. */
void remote_follow(struct remote_box *b, enum box_state state);
/* As the sandbox of this id was listed: the keeper tells the box. */
void remote_follow_listed(struct remote *p, const char *id, enum box_state state);
/* What we hold the sandbox of this id for; false: it is none that we know. */
bool remote_knows(struct remote *p, const char *id, enum box_state *ret);
enum box_state remote_state_of(struct remote_box *b);
/* ops->look, and the box's state follows. */
int remote_look(struct remote_box *b, struct call *c, struct box_status *ret);
/* Until the API says `wanted`: a change that was begun there. */
int remote_wait_for(struct remote_box *b, struct call *c, enum box_state wanted);
/* -EHOSTDOWN, -ENODEV with a sentence; from memory, once the API was asked. */
int remote_check_runs(struct remote_box *b, struct call *c);

/* As whom commands run and where they start; asks inside the first time. Borrowed. */
struct remote_place {
        const char *user;
        const char *workdir;
};
int remote_place(struct remote_box *b, struct call *c, struct remote_place *ret);
bool remote_known_place(struct remote_box *b, struct remote_place *ret); /* from memory */
/* It is used, so its end is to be put off. */
void remote_touch(struct remote_box *b);
/* The keeper's: put it off, if it is time; when to come again. */
uint64_t remote_renew(struct remote_box *b, struct call *c);

/*
 * A creation whose request was sent and that failed so may have made a sandbox: look for it, by
 * the key in its labels, in the service's list; some seconds, whatever is left of c's time. With
 * 0 `ret` is its id, and c has time for what is left to do. -ENOENT: none, the sentence stands.
 */
bool remote_may_be_made(int r);
int remote_find_made(struct provider *p, struct call *c, const struct spec *spec, char *ret,
                     size_t size);

/* What goes on inside of a creation. */
void remote_tell(const struct remote *p, const struct spec *spec, const char *phase);
/*
 * The sandbox was just made: everything that the first command needs. Takes `b`: it is discarded
 * where that fails, or where `r` says that something before did.
 */
int remote_furnish(struct remote_box *b, int r, struct call *c, const struct spec *spec,
                   struct box **ret);
/*
 * Put our program into the sandbox and start the holder there. -EOPNOTSUPP it can't run there, with
 * a sentence.
 */
int remote_put_init(struct remote_box *b, struct call *c);

/* A failure of the service, or of the way there, that may not come again. */
bool remote_is_passing(int r);

/* ---- the table's ---- */

int remote_box_state(struct box *b, struct call *c, struct box_status *ret);
void remote_box_release(struct box *b);
void remote_set_timeout(struct box *b, const struct spec *spec);
int remote_box_start(struct box *b, struct call *c, const struct spec *spec);
int remote_box_pause(struct box *b, struct call *c);
int remote_box_resume(struct box *b, struct call *c);
int remote_box_stop(struct box *b, struct call *c);
int remote_box_destroy(struct box *b, struct call *c);
int remote_exec_start(struct box *b, struct call *c, const struct exec_req *in,
                      struct exec_sink *to, struct exec **ret);
int remote_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                       const uint64_t have[2], struct exec_sink *to, struct exec **ret);
int remote_exec_write(struct exec *x, struct call *c, const void *data, size_t size, bool is_last);
int remote_exec_signal(struct exec *x, struct call *c, int signal);
void remote_exec_release(struct exec *x);
int remote_list_files(struct box *b, struct call *c, const struct file_listing *what,
                      struct file_list_sink *to);
int remote_box_stat(struct box *b, struct call *c, const char *path, struct stat *ret);
int remote_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size);
int remote_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
                 size_t size_max, struct file_sink *to);
int remote_file_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                     struct stat *ret_st);
int remote_apply(struct box *b, struct call *c, struct change *changes, size_t count);
int remote_statfs(struct box *b, struct call *c, struct statvfs *ret);
int remote_workdir(struct box *b, struct call *c, char *ret, size_t size);

/* What remote/ and inside/ have of a table; with file_read and so on of files.h. */
#define REMOTE_TABLE                                                                               \
        .destroy = remote_box_destroy, .state = remote_box_state, .release = remote_box_release,   \
        .start = remote_box_start, .pause = remote_box_pause, .resume = remote_box_resume,         \
        .set_timeout = remote_set_timeout, .exec_start = remote_exec_start,                        \
        .exec_attach = remote_exec_attach, .exec_write = remote_exec_write,                        \
        .exec_signal = remote_exec_signal, .exec_release = remote_exec_release,                    \
        .list_files = remote_list_files, .stat = remote_box_stat, .readlink = remote_readlink,     \
        .fetch = remote_fetch, .file_open = remote_file_open, .file_read = inside_file_read,       \
        .file_close = inside_file_close, .apply = remote_apply, .statfs = remote_statfs,           \
        .workdir = remote_workdir
