/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sandbox service is: the contract between the file system above and the services below.
 *
 * A provider is a constant table of functions (struct provider_ops) and an instance (struct
 * provider, the head of the service's own struct). A box is one sandbox of a provider (struct box,
 * likewise the head of a larger struct). Callers never touch the table; they call provider_*() and
 * box_*() below, which check arguments and results.
 *
 * Threads: every function may be called from any worker at any time, for different boxes and for
 *          the same one. Functions that take a `struct call` may block until c->deadline_ns; the
 *          others answer from memory at once.
 * Locks:   the caller holds none. Sinks and listeners are called from the provider's threads,
 *          holding no lock.
 * Errors:  -Exxx, with one sentence for people in the call. The meaning of each errno is that of
 *          the file system's own contract: -ENODEV the sandbox is gone, -EHOSTDOWN paused or
 *          stopped, -EOPNOTSUPP this service can't, -EPERM not allowed by the operator, -EBUSY
 *          wrong state, -ETIMEDOUT deadline, -EPROTO an unexpected answer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "providers/files.h"
#include "transport/base/call.h"
#include "transport/base/names.h"

struct provider;
struct box;
struct exec;

/* ---- states ---- */

/*
 * The states that people see. Each service has a table from every raw word of its API to one of
 * these; a word that is not in it is BOX_UNKNOWN, never BOX_GONE, which needs positive proof.
 */
enum box_state {
        BOX_CREATING,
        BOX_STARTING,
        BOX_RUNNING,
        BOX_PAUSING,
        BOX_PAUSED,
        BOX_RESUMING,
        BOX_STOPPING,
        BOX_STOPPED,
        BOX_DESTROYING,
        BOX_GONE,
        BOX_ERROR,
        BOX_UNKNOWN,
};
#define BOX_STATE_COUNT 12

const char *box_state_name(enum box_state s); /* "running"; never NULL */
enum box_state box_state_parse(const char *word); /* BOX_UNKNOWN when it is none of them */

/* What a provider says of one box. Texts are foreign: escaped by whoever shows them. */
struct box_status {
        enum box_state state;
        char raw[64]; /* the service's own word */
        char image[256]; /* "" unknown */
        uint32_t cpu_milli; /* limits that hold; 0: none or unknown */
        uint64_t memory; /* bytes */
        uint64_t disk; /* bytes */
        uint64_t expires_real_ns; /* 0: never, or unknown */
        /* why it is in BOX_ERROR, BOX_STOPPED by itself and the like; "" none */
        char sentence[256];
};

/* ---- creation ---- */

/*
 * Settings that a creation may name; bit (1 << x) of spec.given says which were named, by the user
 * or an INI section.
 */
enum setting {
        SETTING_IMAGE,
        SETTING_TEMPLATE,
        SETTING_SNAPSHOT,
        SETTING_CPU,
        SETTING_MEMORY,
        SETTING_DISK,
        SETTING_PROCESSES,
        SETTING_TIMEOUT,
        SETTING_CREATE_TIMEOUT,
        SETTING_NET,
        SETTING_USER,
        SETTING_WORKDIR,
        SETTING_READONLY,
        SETTING_RUNTIME,
        SETTING_ISOLATION,
        SETTING_ENV,
        SETTING_LABEL,
        SETTING_MOUNT,
        SETTING_HOST,
        SETTING_PORT,
        SETTING_IDENTITY,
        SETTING_KNOWN_HOSTS,
        SETTING_HOSTKEY,
        SETTING_JUMP,
        SETTING_ROOT,
        SETTING_BASE,
        SETTING_TRANSPORT,
};
#define SETTING_COUNT 27
#define SETTING_BIT(s) (UINT32_C(1) << (s))

/* What the operator lets people ask for, by -o allow= or an INI section. Off unless named. */
enum allow {
        ALLOW_ISOLATION = 1 << 0, /* isolation=none */
        ALLOW_NET = 1 << 1, /* net=host */
        ALLOW_MOUNT = 1 << 2, /* mount.N of host paths */
        ALLOW_RUNTIME = 1 << 3,
        ALLOW_SSH = 1 << 4, /* hosts, identities, jumps, roots that no INI section names */
};

struct pair {
        char *key;
        char *value;
};

struct mount_spec {
        char *host; /* absolute */
        char *inside; /* absolute */
        bool is_readonly;
};

/* One sandbox to be, checked and typed. Borrowed for each call. What is absent is NULL or 0. */
struct spec {
        /* ours: unique for ever, [a-z0-9]+; in the service's labels where it has them */
        char key[32];
        char name[NAME_SIZE]; /* the directory's name when it was created */
        char owner[32]; /* id of the state directory */
        uint32_t given; /* SETTING_BITs that were named */
        /* settings that are words: image, net, user, workdir, isolation, host, ... */
        char *text[SETTING_COUNT];
        uint32_t cpu_milli; /* thousandths of a processor */
        uint64_t memory; /* bytes */
        uint64_t disk; /* bytes */
        uint64_t processes;
        uint64_t timeout_ns; /* idle span */
        uint64_t create_timeout_ns;
        bool is_readonly;
        struct pair *env; /* secret values: never logged, wiped when freed */
        size_t env_count;
        struct pair *labels;
        size_t label_count;
        struct mount_spec *mounts;
        size_t mount_count;
};

/* ---- exec ---- */

enum exec_stream { EXEC_STDOUT = 0, EXEC_STDERR = 1 };

enum exec_end_kind {
        EXEC_END_CODE, /* value: 0-255 */
        EXEC_END_SIGNAL, /* value: the signal's number */
        EXEC_END_TIMEOUT,
        EXEC_END_LOST, /* nobody can know how it ended */
        EXEC_END_ERROR, /* it never started; `sentence` says why */
};

struct exec_end {
        enum exec_end_kind kind;
        int value;
        /* bytes a stream that came to nobody, beyond what the sink counted itself */
        uint64_t dropped[2];
        char sentence[256];
};

/* One command. Borrowed for the call. */
struct exec_req {
        /* unique for the box's life; the id to attach by where `id` is ours */
        uint64_t number;
        const char *const *argv; /* NULL-terminated, at least one */
        /* absolute, or relative to the working directory; NULL: the working directory */
        const char *cwd;
        const char *user; /* NULL: the sandbox's own */
        const struct pair *env; /* added to, and over, the sandbox's; secret */
        size_t env_count;
        /* 0: none. TERM to the process group, 5 s, KILL; the end is EXEC_END_TIMEOUT */
        uint64_t timeout_ns;
        bool has_stdin; /* false: /dev/null */
};

/*
 * Where an exec's output and its one end go. Called by the provider's thread, never two at once for
 * one exec, holding no lock. output may write to a local disk; end must hand on and return.
 */
struct exec_sink {
        /*
         * `offset` counts all bytes that this stream ever gave: a gap means that bytes were
         * dropped. A repeat of known bytes is allowed.
         */
        void (*output)(struct exec_sink *to, enum exec_stream stream, uint64_t offset,
                       const void *data, size_t size);
        /* The sandbox took stdin up to `total` bytes; more may be written. */
        void (*stdin_taken)(struct exec_sink *to, uint64_t total);
        /* Exactly once, after the last output, unless exec_release came first. */
        void (*end)(struct exec_sink *to, const struct exec_end *end);
};

/* bytes of stdin that may be written beyond what was taken */
#define EXEC_STDIN_WINDOW (256 * 1024)

/* ---- news and the direct volume ---- */

/* Given at birth; called from the provider's threads, holding no lock. */
struct provider_listener {
        void (*box_changed)(void *ctx, const char *id); /* its state may differ: ask again */
        /* What goes on inside of create(), of the spec's key: "pulling ...". May be NULL. */
        void (*box_phase)(void *ctx, const char *key, const char *text);
        void *ctx;
};

/* The real directory behind fs/, for providers with PROVIDER_DIRECT. */
struct box_root {
        int fd; /* directory, O_PATH or O_RDONLY; the caller's to close */
        uid_t uid; /* who owns what is made there (inside: the user that exec runs as) */
        gid_t gid;
        char inside[256]; /* its absolute path as commands see it */
};

struct box_found {
        const char *id;
        const char *key; /* "" when it carries none of ours */
        const char *name;
        struct box_status status;
};
struct box_sink {
        /* borrowed; non-zero ends the list */
        int (*found)(struct box_sink *to, const struct box_found *found);
};

/* ---- the table ---- */

enum provider_trait {
        PROVIDER_DIRECT = 1 << 0, /* fs/ is a directory of this machine: root() is there */
        PROVIDER_COSTS = 1 << 1, /* time costs money: an idle time-out by default */
        PROVIDER_SURVIVES = 1 << 2, /* a stopped sandbox keeps its files */
        PROVIDER_FILES_WHEN_DOWN = 1 << 3, /* and they can be reached while it is down */
        PROVIDER_TELLS = 1 << 4, /* box_changed tells every change: it isn't polled */
};

struct provider_config {
        const char *instance; /* name of the INI section, else the kind */
        /* keys of the section that are this provider's own; borrowed for the call */
        const struct pair *pairs;
        size_t pair_count;
        unsigned allow; /* enum allow */
        /* a directory of its own, mode 0700 (0711 when root), borrowed until provider_close */
        int state_dir;
        const char *state_path; /* the same as an absolute path, borrowed until provider_close */
        const char *owner;
        /* where our own helper executables are installed; borrowed likewise */
        const char *helper_dir;
        const char *source; /* "FILE" for messages about pairs; NULL without a file */
        struct provider_listener listener;
};

struct provider_ops {
        const char *name; /* registry key, [a-z0-9_-]+ */
        uint32_t traits; /* enum provider_trait */
        uint32_t settings; /* SETTING_BITs that this service can hold at all */
        /* NULL-terminated: keys of an INI section that are its own */
        const char *const *config_keys;
        /* Whether it is to be had without an INI section: its variables, its socket. NULL: no. */
        bool (*is_there)(void);

        int (*open)(const struct provider_config *config, struct call *c, struct provider **ret);
        void (*close)(struct provider *p); /* boxes were released before. Sandboxes live on */

        /*
         * Refuse before anything is made: a value out of range (-EINVAL), not enforceable here
         * (-EOPNOTSUPP), not allowed (-EPERM). Local work only.
         */
        int (*check)(struct provider *p, struct call *c, const struct spec *spec);

        /*
         * Required. Repeat: create never (look for spec->key in list() first); the others always.
         * A create that fails sets c->made_nothing where that is certain, as when nobody was reached.
         */
        int (*create)(struct provider *p, struct call *c, const struct spec *spec,
                      struct box **ret);
        /* of what is gone: success. Leaves no process and no file */
        int (*destroy)(struct box *b, struct call *c);
        /* those with our owner id */
        int (*list)(struct provider *p, struct call *c, struct box_sink *to);
        int (*state)(struct box *b, struct call *c, struct box_status *ret);

        /* Re-attach to what a former run of ours created; local work only. */
        int (*attach)(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                      struct box **ret);
        void (*release)(struct box *b); /* frees the struct, not the sandbox */

        /* Lifecycle; NULL: the service has no such thing. Already there is success. */
        int (*start)(struct box *b, struct call *c, const struct spec *spec);
        /* all processes end: TERM, 5 s, KILL; files stay */
        int (*stop)(struct box *b, struct call *c);
        int (*pause)(struct box *b, struct call *c);
        int (*resume)(struct box *b, struct call *c);
        /*
         * Its idle time-out, spec->timeout_ns, is another now: a service with an end of its own is
         * told by the provider, soon, and again until it has heard. From memory. NULL: it has none.
         */
        void (*set_timeout)(struct box *b, const struct spec *spec);

        /*
         * Commands. exec_start returns once the command runs or is certain to have failed (then
         * -Exxx and `to` is never called); -ETIMEDOUT: it may run all the same; ask by exec_attach.
         * exec_attach: -ENOENT when the service never got it or has forgotten it; `have` are the
         * bytes of each stream that we hold, output goes on from there; `taken`, the stdin bytes
         * that it has.
         */
        int (*exec_start)(struct box *b, struct call *c, const struct exec_req *in,
                          struct exec_sink *to, struct exec **ret);
        int (*exec_attach)(struct box *b, struct call *c, uint64_t number, const char *id,
                           const uint64_t have[2], struct exec_sink *to, struct exec **ret);
        int (*exec_write)(struct exec *x, struct call *c, const void *data, size_t size,
                          bool is_last);
        /* to its whole process group */
        int (*exec_signal)(struct exec *x, struct call *c, int signal);
        /* the sink is not called after it returns; the command runs on */
        void (*exec_release)(struct exec *x);

        /* Files: as files.h says of box_list and so on; all, or none with PROVIDER_DIRECT. */
        int (*list_files)(struct box *b, struct call *c, const struct file_listing *what,
                          struct file_list_sink *to);
        int (*stat)(struct box *b, struct call *c, const char *path, struct stat *ret);
        int (*readlink)(struct box *b, struct call *c, const char *path, char *ret, size_t size);
        int (*fetch)(struct box *b, struct call *c, const char *const *paths, size_t count,
                     size_t size_max, struct file_sink *to);
        int (*file_open)(struct box *b, struct call *c, const char *path, struct box_file **ret,
                         struct stat *ret_st);
        ssize_t (*file_read)(struct box_file *f, struct call *c, void *data, size_t size,
                             uint64_t offset, struct stat *ret_st);
        void (*file_close)(struct box_file *f);
        int (*apply)(struct box *b, struct call *c, struct change *changes, size_t count);
        int (*statfs)(struct box *b, struct call *c, struct statvfs *ret);
        int (*workdir)(struct box *b, struct call *c, char *ret, size_t size);

        /* PROVIDER_DIRECT. Works in every state, from creation to destruction. */
        int (*root)(struct box *b, struct call *c, struct box_root *ret);
        /* No process but our own can change files there now. From memory. NULL: never known. */
        bool (*is_quiet)(const struct box *b);
};

/* Heads of the services' own structs. Fixed after open, create or attach. */
struct provider {
        const struct provider_ops *ops;
        char instance[NAME_SIZE];
        unsigned allow;
};
struct box {
        struct provider *provider;
        char id[128]; /* the service's name for it */
};
struct exec {
        struct box *box;
        char id[64]; /* the service's name for it, "" none */
        _Atomic(int64_t)
                pid; /* as seen inside, 0 unknown (yet: after an attach it may come later) */
};

/* ---- what callers call ---- */

int provider_open(const char *kind, const struct provider_config *config, struct call *c,
                  struct provider **ret);
void provider_close(struct provider *p); /* accepts NULL */
int provider_check(struct provider *p, struct call *c, const struct spec *spec);
int provider_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret);
int provider_list(struct provider *p, struct call *c, struct box_sink *to);
int provider_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                    struct box **ret);

int box_destroy(struct box *b, struct call *c);
int box_get_state(struct box *b, struct call *c, struct box_status *ret);
int box_start(struct box *b, struct call *c, const struct spec *spec);
int box_stop(struct box *b, struct call *c);
int box_pause(struct box *b, struct call *c);
int box_resume(struct box *b, struct call *c);
void box_set_timeout(struct box *b, const struct spec *spec);
int box_root(struct box *b, struct call *c, struct box_root *ret);
bool box_is_quiet(const struct box *b);
void box_release(struct box *b); /* accepts NULL */

int exec_start(struct box *b, struct call *c, const struct exec_req *in, struct exec_sink *to,
               struct exec **ret);
int exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                const uint64_t have[2], struct exec_sink *to, struct exec **ret);
int exec_write(struct exec *x, struct call *c, const void *data, size_t size, bool is_last);
int exec_signal(struct exec *x, struct call *c, int signal);
void exec_release(struct exec *x); /* accepts NULL */

/* Operations that a status file or a refusal can name before they are tried. */
enum provider_op {
        PROVIDER_OP_START,
        PROVIDER_OP_STOP,
        PROVIDER_OP_PAUSE,
        PROVIDER_OP_RESUME,
        PROVIDER_OP_STDIN,
        PROVIDER_OP_SIGNAL
};
bool provider_can(const struct provider *p, enum provider_op op);

/* ---- specs ---- */

void spec_init(struct spec *s);
void spec_done(struct spec *s); /* wipes and frees everything that it points to */
