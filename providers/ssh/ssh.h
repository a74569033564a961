/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ssh provider: a host that one can reach by SSH, seen as sandboxes. A sandbox is a directory
 * of the account there, with a marker that says whose it is:
 *
 *      BASE/<key>/           0700; BASE is ~/.sbxfs unless base= says another
 *        sandbox             the marker, a record (record.h): written last, by temporary name and
 *                            rename; a directory without it is half made, or half removed
 *        state               "stopped" or "paused"; absent: it runs
 *        env                 0600, the creation's env.K as `export K='V'` lines; absent: none
 *        work/               fs/, where commands start, unless root= names a directory of the host
 *        run/                0700, of the commands: exec.c's
 *
 * Its parts: ssh.c (the table, the instance), config.c (what the operator and the user said, ssh -G),
 * host.c (a host), pool.c (its connections), program.c (scripts, the probe), box.c (a sandbox and
 * its paths), marker.c, life.c; exec.c and script.c (commands), helpers.c (its shells); files.c (files).
 *
 * Threads: any, everywhere. Dials run on threads of their own; callers wait for them, each up to
 *          its own deadline.
 * Locks:   the provider's, a host's and a box's are leaves, none is held across I/O.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"
#include "providers/shell/shell.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/stream.h"

struct buf;
struct sftp; /* transport/sftp/sftp.h */
struct exec_host; /* exec_host.h */
struct ssh_config; /* config.h */
struct ssh_dialer; /* pool.c */
struct ssh_host;
struct ssh_provider;

extern const struct provider_ops ssh_ops;

struct ssh_provider {
        struct provider base;
        /* fixed after open */
        struct ssh_config *section; /* the operator's */
        int dir; /* the state directory; borrowed from the config, as the texts are */
        const char *path;
        const char *owner;
        struct provider_listener listener;
        pthread_t keeper; /* closes what is idle */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct list hosts; /* struct ssh_host */
        struct list boxes; /* struct ssh_box */
        bool is_closing;
};

static inline struct ssh_provider *ssh_provider_of(struct provider *p)
{
        return container_of(p, struct ssh_provider, base);
}

/* ---- hosts ---- */

/* What a host's programs can, found by one script when a first connection is made. */
enum host_can {
        HOST_SHELL = 1 << 0, /* commands at all; else files only (internal-sftp, nologin) */
        HOST_SETSID = 1 << 1, /* setsid(1) */
        HOST_FIND_PRINTF = 1 << 2, /* GNU find: -printf, -xdev */
        HOST_STAT_C = 1 << 3, /* stat -c (GNU, busybox) */
        HOST_HEAD_C = 1 << 4, /* head -c */
        HOST_TAIL_C = 1 << 5, /* tail -c +N */
        HOST_FALLOCATE = 1 << 6, /* fallocate -p */
        HOST_RM_ONE_FS = 1 << 7, /* rm --one-file-system */
        HOST_PROC = 1 << 8, /* /proc/PID/stat as on Linux */
        HOST_MKFIFO = 1 << 9,
        HOST_SLEEP_FRACTION = 1 << 10, /* sleep 0.1 */
        HOST_TIMEOUT = 1 << 11, /* timeout(1) */
        HOST_TAR = 1 << 12,
        HOST_GZIP = 1 << 13,
        HOST_MV_T = 1 << 14, /* mv -T */
        HOST_DD = 1 << 15,
        HOST_TEE = 1 << 16,
        HOST_TOUCH_NS = 1 << 17, /* touch -h -d @S.NNNNNNNNN, of a link itself (GNU) */
};

/* Connections of a host. Each has a file channel; the first also carries the programs. */
enum host_lane {
        HOST_CONTROL, /* what somebody waits for: attributes, listings, small files */
        HOST_BULK, /* content; HOST_BULK + 1 ...: more, for large files */
};
#define HOST_LANES 5

struct ssh_host {
        struct ssh_provider *ssh;
        struct list link; /* of the provider, guarded by its lock; and so is: */
        unsigned refs;
        uint64_t unused_ns; /* since when nobody had a reference */

        /* fixed after init */
        char id[20]; /* of its settings: [0-9a-f]+; part of box ids */
        struct ssh_config *config;
        struct shell *shell; /* helper shells */
        struct shell_opener opener; /* of those */
        struct exec_host *execs; /* exec.c's */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        bool is_known; /* the probe was answered */
        bool is_asking; /* it's tried again, by one for all */
        unsigned can; /* enum host_can; a HOST_SHELL that was seen stays */
        /* guarded by lock: what the first connection found; fixed from then on */
        char *home; /* absolute: where SFTP and programs start */
        char *base; /* absolute, links resolved; NULL until the first sandbox made it */

        struct ssh_dialer *dialer; /* pool.c's */
};

/* A file channel on a connection; counted. Fixed. */
struct ssh_link {
        struct ssh_host *host;
        enum host_lane lane;
        struct sftp *sftp;
        bool is_ordered; /* OpenSSH: the requests of one channel are carried out in their order */
};

/**
 * The host's file channel of a lane. Dials when there is none, or when the one that was has died.
 *
 * Shape:  a bulk lane gives the control link when the host doesn't take another connection.
 * Owner:  link_unref(*ret). A link that dies stays valid until then; its calls fail. Keep it for as
 *         long as handles are open on it; ask again for the next call. A bulk link that nobody
 *         holds is closed after 60 s.
 * Errors: those of ssh_connect; -EHOSTUNREACH at once while the breaker is open (two time-outs in a
 *         row; one probe goes on behind) or a failed dial is younger than the back-off; -ETIMEDOUT,
 *         -EINTR the caller's own.
 */
int host_link(struct ssh_host *h, struct call *c, enum host_lane lane, struct ssh_link **ret);
struct ssh_link *link_ref(struct ssh_link *l);
void link_unref(struct ssh_link *l); /* accepts NULL; not from an event */
/* Bulk lanes that the operator lets us use: 1 to HOST_LANES - 1. */
unsigned host_bulk_lanes(const struct ssh_host *h);
/* What can be said of the host now, without a call: 0 not asked yet. */
unsigned host_known(struct ssh_host *h);
/*
 * Connect if need be, and know: enum host_can, or -errno. 0 also while no program has answered: the
 * host may be slow, and files can be had by SFTP meanwhile.
 */
int host_probe(struct ssh_host *h, struct call *c);
/*
 * For what needs a shell: as host_probe, but who has not answered is asked again. -EOPNOTSUPP the
 * account runs no commands; -EAGAIN no answer yet; nothing was started.
 */
int host_shell(struct ssh_host *h, struct call *c);

/**
 * Start a program there, on any connection that takes one more channel: `command` is read by the
 * account's own shell, whichever it is: use constants ("exec sh") and send the rest as input. What
 * it prints may begin with what the account's rc files print.
 *
 * Owner:  *ret to stream_close, never from an event.
 * Errors: as host_link and host_shell.
 */
int host_open_program(struct ssh_host *h, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret);

/**
 * Run a script by `sh` in a channel of its own (the helper shell is the faster way, for those that
 * nothing can hold up), and take what it prints on standard output between our frames.
 *
 * Shape:  `script` is fed as input to sh and starts in the home directory; values are in it, by
 *         quote.h. Standard error goes to the sentence when the code isn't 0.
 * Returns: its exit code, or -errno as host_open_program; -EOPNOTSUPP no shell; -EPROTO no frame.
 */
int host_script(struct ssh_host *h, struct call *c, const char *script, size_t size,
                struct buf *out);

void host_unref(struct ssh_host *h); /* accepts NULL */

/* ---- sandboxes ---- */

/* Absolute, as SFTP and commands see them. */
struct ssh_paths {
        char *dir; /* BASE/<key> */
        char *work; /* fs/ */
        char *run; /* <dir>/run */
};

struct ssh_box {
        struct box base;
        struct ssh_provider *ssh;
        struct ssh_host *host; /* counted */
        char key[32]; /* name of its directory */
        struct list link; /* of the provider, guarded by its lock */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock; from then on fixed: read it by ssh_box_paths */
        struct ssh_paths *paths; /* NULL until the host was reached */
        /* guarded by lock */
        char owner[32]; /* whose marker it must have; "": the one that is found first, adopted */
        bool is_changing; /* start, stop, pause, resume or destroy is at work; one at a time */
        enum box_state
                state; /* as last seen there, or made: RUNNING, STOPPED, PAUSED, GONE, UNKNOWN */

        void *execs; /* exec.c's own; ssh_execs_done(b) before the box is freed */
        void *files; /* files.c's own; ssh_files_done(b) likewise */
};

/*
 * Where it is. Reaches for the host the first time; from memory later.
 * -ENODEV it isn't there any more (positively); else as host_link.
 */
int ssh_box_paths(struct ssh_box *b, struct call *c, const struct ssh_paths **ret);
/* NULL while it isn't known. From memory. */
const struct ssh_paths *ssh_box_known_paths(struct ssh_box *b);
/*
 * 0; -EHOSTDOWN with a sentence when it is stopped or paused; -ENODEV gone. From memory, once the
 * host was reached.
 */
int ssh_box_check_runs(struct ssh_box *b, struct call *c);
/* A call found its directory missing: the next state call looks, and says so. */
void ssh_box_missed(struct ssh_box *b);

static inline struct ssh_box *ssh_box_of(struct box *b)
{
        return container_of(b, struct ssh_box, base);
}

/* ---- what exec.c offers (beside the table's exec_*) ---- */

int ssh_exec_start(struct box *b, struct call *c, const struct exec_req *in, struct exec_sink *to,
                   struct exec **ret);
int ssh_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                    const uint64_t have[2], struct exec_sink *to, struct exec **ret);
int ssh_exec_write(struct exec *x, struct call *c, const void *data, size_t size, bool is_last);
int ssh_exec_signal(struct exec *x, struct call *c, int signal);
void ssh_exec_release(struct exec *x);
/**
 * A signal to every process of the sandbox's commands, by what run/ says, those of former runs of
 * ours and their background processes included; 0 only counts.
 *
 * Returns: how many process groups live (before the signal), or -errno; as host_shell.
 */
int ssh_exec_signal_all(struct ssh_box *b, struct call *c, int signal);
void ssh_execs_done(struct ssh_box *b);

/* ---- what files.c offers (beside the table's files) ---- */

int ssh_list_files(struct box *b, struct call *c, const struct file_listing *what,
                   struct file_list_sink *to);
int ssh_stat(struct box *b, struct call *c, const char *path, struct stat *ret);
int ssh_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size);
int ssh_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
              size_t size_max, struct file_sink *to);
int ssh_file_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                  struct stat *ret_st);
ssize_t ssh_file_read(struct box_file *base, struct call *c, void *data, size_t size,
                      uint64_t offset, struct stat *ret_st);
void ssh_file_close(struct box_file *base);
int ssh_apply(struct box *b, struct call *c, struct change *changes, size_t count);
int ssh_statfs(struct box *b, struct call *c, struct statvfs *ret);
void ssh_files_done(struct ssh_box *b);
int ssh_workdir(struct box *b, struct call *c, char *ret, size_t size); /* box.c */
