/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share: the structs behind fleet.h, sandbox.h and task.h, and the
 * calls between them.
 *
 * References: whoever is outside holds a task by a count of its own and one of its sandbox, so that
 *             a sandbox outlives its tasks; the sandbox's table holds each task once, without the
 *             second. The fleet's table holds each sandbox once.
 * Locks:      save_lock, record_lock, stdin_lock (each held across local disk I/O for one file),
 *             then fleet, sandbox, then the leaves news and tick; none but the first three is held
 *             across I/O, and none at all across a provider call or a listener's function. A task
 *             is guarded by its sandbox's lock (functions on it are *_locked without an annotation:
 *             clang can't see that t->sandbox is sb).
 * Workers:    a function named *_job runs on a worker, owns one reference, and delivers the news at
 *             its end.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/sandbox/fleet.h"
#include "fs/sandbox/output.h"
#include "fs/sandbox/sandbox.h"
#include "fs/sandbox/task.h"
#include "providers/provider.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/base/map.h"
#include "transport/base/worker.h"

#define TASKS_RUNNING_MAX 32 /* queued or running, a sandbox; and as many new ones */
#define TASKS_KEPT 64
#define OUTPUT_KEPT (UINT64_C(1) << 30) /* bytes a sandbox */
#define STDIN_MAX (UINT64_C(64) << 20)
#define JOBS_MAX 64 /* waiting, a sandbox; beside execs */
#define ENV_MAX ((size_t)1024 * 1024)
#define CALL_NS (10 * NS_PER_S) /* single-answer calls */
#define CREATE_NS (600 * NS_PER_S) /* lifecycle calls, unless create_timeout says otherwise */
#define NOTHING_DUE NEVER_NS

/* ---- fleet ---- */

/* One provider instance of the mount. Fixed after fleet_open but for what is said. */
struct section {
        struct fleet *fleet;
        char instance[NAME_SIZE];
        char kind[NAME_SIZE];
        char state_path[4096]; /* providers/<instance> */
        int state_dir;
        unsigned allow;
        struct provider *provider; /* NULL: it could not be opened */
        struct spec defaults; /* settings of its INI section */
        /* guarded by fleet->lock */
        bool is_down;
        char sentence[1100]; /* why; escaped */
        uint64_t polled_ns; /* when it was polled last; 0: never */
        bool is_polling;
};

struct news {
        struct mutex lock;
        struct list sandboxes GUARDED_BY(lock); /* each entry holds a reference */
        struct list tasks GUARDED_BY(lock); /* likewise */
        bool fleet GUARDED_BY(lock);
        bool is_posted GUARDED_BY(lock);
};

struct fleet {
        /* fixed after fleet_open */
        struct listener listener;
        struct workers *workers;
        struct fleet_seams seams;
        int state_dir, lock_fd;
        char *state_path, *helper_dir, *mountpoint;
        char owner[32];
        unsigned max_sandboxes;
        enum on_unmount on_unmount;
        uint64_t output_cap;
        struct section *sections;
        size_t section_count;
        struct section *default_section;
        struct results *results;

        struct news news;
        atomic_bool is_closing; /* nothing new is begun */
        atomic_bool is_drained; /* no thread but the pool's and who closes it knows of it */
        _Atomic uint64_t generation, changed_real_ns, names_real_ns;

        struct mutex lock;
        struct cond idle; /* a sandbox ran out of jobs, or went */
        struct sandbox **named GUARDED_BY(lock); /* sorted by name */
        size_t named_count GUARDED_BY(lock), named_room GUARDED_BY(lock);
        struct imap *by_serial GUARDED_BY(lock); /* all: owns one reference each */
        uint64_t last_serial GUARDED_BY(lock), saved_serial GUARDED_BY(lock);
        unsigned tellers GUARDED_BY(lock); /* threads of providers within their listener */

        struct mutex tick_lock; /* a leaf */
        uint64_t tick_ns GUARDED_BY(tick_lock); /* NOTHING_DUE: none is set */
        uint64_t tick_id GUARDED_BY(tick_lock);
};

int fleet_state_open(struct fleet *f, const struct fleet_config *config, struct call *c);
void fleet_state_close(struct fleet *f, bool is_clean);
void fleet_state_draining(struct fleet *f); /* another mount may ask for the lock from now on */
bool fleet_state_is_wanted(struct fleet *f);
int fleet_next_serial(struct fleet *f, uint64_t *ret);
/* Whether a sandbox of this section has that id. */
bool fleet_has_id(struct fleet *f, const struct section *s, const char *id);
void fleet_load(struct fleet *f);

/* takes over a reference on success */
int fleet_insert_locked(struct fleet *f, struct sandbox *sb) REQUIRES(f->lock);
void fleet_remove_name_locked(struct fleet *f, struct sandbox *sb) REQUIRES(f->lock);
int fleet_add_name_locked(struct fleet *f, struct sandbox *sb, const char *name) REQUIRES(f->lock);
/* borrowed */
struct sandbox *fleet_find_locked(struct fleet *f, const char *name) REQUIRES(f->lock);
/* base.1, base.2, ... */
int fleet_give_name(struct fleet *f, struct sandbox *sb, const char *base);
void fleet_forget(struct fleet *f, struct sandbox *sb); /* it is no more */
bool fleet_hide(struct fleet *f, struct sandbox *sb); /* its name is free; false: it had none */
/* All sandboxes, each with a reference, in an array to free; NULL: none, or no memory. */
struct sandbox **fleet_all(struct fleet *f, size_t *ret_count);
struct section *fleet_section(struct fleet *f, const char *instance);
int fleet_check_name(const char *name, struct call *c);
/* of a call that tells whether the service is there */
void section_report(struct section *s, int code, const char *sentence);
void fleet_touch(struct fleet *f); /* the root's status changed */

void news_init(struct news *n);
void news_done(struct fleet *f); /* drops what is left */
void news_sandbox(struct sandbox *sb);
void news_task(struct task *t);
void news_fleet(struct fleet *f);
/* now, on this thread: a worker's or a provider's, without locks */
void news_deliver(struct fleet *f);
void news_post(struct fleet *f); /* soon, on a worker */

void fleet_idle(
        struct fleet
                *f); /* a sandbox has carried out its jobs: for whoever waits for all of them */

/* Look at everything that is due at `due_ns` or soon after. */
void fleet_due(struct fleet *f, uint64_t due_ns);
void fleet_box_changed(void *ctx, const char *id); /* a provider's news; ctx is the section */
void fleet_box_phase(void *ctx, const char *key, const char *text); /* likewise */

/* ---- sandbox ---- */

enum job_kind {
        JOB_CREATE,
        JOB_ATTACH, /* at the start: what a former run left */
        JOB_ADOPT,
        JOB_START,
        JOB_STOP,
        JOB_RESTART,
        JOB_PAUSE,
        JOB_RESUME,
        JOB_SYNC, /* deliver what was written */
        JOB_RETRY, /* and what was refused */
        JOB_EXEC,
        JOB_DESTROY,
        JOB_NONE,
};

struct job {
        struct list link;
        enum job_kind kind;
        bool is_automatic; /* by the idle time-out or the unmount, not by a person */
        bool is_idle; /* by the idle time-out: what can't be paused is stopped or destroyed */
        struct results *results; /* borrowed; with seq */
        uint64_t seq;
        struct task *task; /* JOB_EXEC: a reference */
};

struct sandbox {
        atomic_uint refs;
        /* fixed after birth */
        struct fleet *fleet;
        struct section *section; /* NULL: no such provider is configured */
        uint64_t serial;
        char key[32]; /* also of its directory */
        char provider[NAME_SIZE];
        char path[64]; /* sandboxes/<key>, below the state directory */
        struct results *results;
        uint64_t born_ns; /* CLOCK_MONOTONIC of this run; creation's beginning */

        _Atomic uint64_t used_ns; /* CLOCK_MONOTONIC of the last use */
        _Atomic uint64_t watched_ns; /* somebody read status */
        struct list news_link; /* guarded by news.lock */
        bool is_news;

        struct mutex save_lock; /* the record on disk */

        struct mutex lock;
        char name[NAME_SIZE] GUARDED_BY(lock); /* and by fleet->lock: a change needs both */
        char base_name[NAME_SIZE] GUARDED_BY(lock); /* before it was destroyed */
        bool is_named GUARDED_BY(lock);
        struct spec spec GUARDED_BY(lock); /* providers get copies */
        /* the creation named variables, whose values are not on disk */
        bool had_env GUARDED_BY(lock);
        struct box *box GUARDED_BY(lock); /* set once, released with the sandbox */
        char box_id[128] GUARDED_BY(lock); /* raw, as recorded */
        enum box_state state GUARDED_BY(lock);
        struct box_status status GUARDED_BY(lock); /* as last heard */
        int reachable GUARDED_BY(lock);
        char phase[64] GUARDED_BY(lock);
        uint64_t since_real_ns GUARDED_BY(lock), created_real_ns GUARDED_BY(lock),
                changed_real_ns GUARDED_BY(lock);
        uint64_t ready_ms GUARDED_BY(lock);
        uint64_t generation GUARDED_BY(lock);
        char last_error[1100] GUARDED_BY(lock);
        uint64_t error_real_ns GUARDED_BY(lock);
        bool is_protected GUARDED_BY(lock), is_foreign GUARDED_BY(lock);
        /* the idle time-out paused or stopped it: exec brings it back */
        bool is_idle_down GUARDED_BY(lock);
        bool was_create_tried GUARDED_BY(lock); /* something may exist, even without a box */
        bool is_recorded GUARDED_BY(lock); /* the record was written once */
        /* a destruction was accepted, even if it failed so far */
        bool is_destroying GUARDED_BY(lock);
        bool is_begun GUARDED_BY(lock); /* by this run */
        bool is_dead GUARDED_BY(lock); /* proven gone and released */

        bool was_told_gone GUARDED_BY(lock); /* listener.sandbox_gone was called */

        struct list jobs GUARDED_BY(lock);
        struct job *retry_job GUARDED_BY(lock); /* a destruction that waits for its next try */
        struct cond exec_idle; /* a task's exec_users became 0 */
        unsigned job_count GUARDED_BY(lock); /* without execs */
        /* what runs, or was handed to a worker; JOB_NONE: nothing */
        enum job_kind current GUARDED_BY(lock);
        bool is_falling_idle
                GUARDED_BY(lock); /* by that: paused or stopped, though nobody said so */
        struct call *call GUARDED_BY(lock); /* of the running job, for cancelling */
        /* rises when a job that tells the state begins and ends: a poll between two of them is void */
        uint64_t job_generation GUARDED_BY(lock);

        struct task **tasks GUARDED_BY(lock); /* by number; each a reference of the table */
        size_t task_count GUARDED_BY(lock), task_room GUARDED_BY(lock);
        uint64_t last_number GUARDED_BY(lock), last_accepted GUARDED_BY(lock);
        unsigned running GUARDED_BY(lock), new_count GUARDED_BY(lock);
        struct task *latest GUARDED_BY(lock); /* borrowed from the table */
        uint64_t tasks_real_ns GUARDED_BY(lock);
        /* of the volume */
        uint64_t dirty_files GUARDED_BY(lock),
                dirty_bytes GUARDED_BY(lock), unsent GUARDED_BY(lock);
        uint64_t unsent_real_ns GUARDED_BY(lock);
        atomic_uint_fast64_t dirty_turns; /* given so far */
        uint64_t dirty_turn GUARDED_BY(lock); /* of these numbers */

        struct pair *env GUARDED_BY(lock); /* secret */
        size_t env_count GUARDED_BY(lock), env_size GUARDED_BY(lock);
        enum env_state env_state GUARDED_BY(lock);

        /* What is due; NOTHING_DUE: nothing. CLOCK_MONOTONIC. */
        uint64_t idle_due_ns GUARDED_BY(lock);
        uint64_t retry_due_ns GUARDED_BY(lock); /* of a destruction */
        /* of tasks, or of the box, that could not be re-attached */
        uint64_t attach_due_ns GUARDED_BY(lock);
        uint64_t sync_due_ns GUARDED_BY(lock); /* records of ended tasks become durable */
        uint64_t lost_due_ns GUARDED_BY(lock); /* it is down: what still runs then is lost */
        unsigned retries GUARDED_BY(lock), attach_retries GUARDED_BY(lock),
                failed_polls GUARDED_BY(lock);
        bool is_polling GUARDED_BY(lock), poll_again GUARDED_BY(lock);

        /* what the root's status showed last */
        enum box_state shown_state GUARDED_BY(lock);
        int shown_task GUARDED_BY(lock);
};

/* NULL: no memory */
struct sandbox *sandbox_new(struct fleet *f, struct section *section, uint64_t serial,
                            const char *key);
/* Something that status shows has changed. */
void sandbox_change_locked(struct sandbox *sb) REQUIRES(sb->lock);
void sandbox_set_state_locked(struct sandbox *sb, enum box_state state) REQUIRES(sb->lock);
void sandbox_say_error_locked(struct sandbox *sb, int code, const char *sentence)
        REQUIRES(sb->lock);
/* Takes over what a provider said. */
void sandbox_apply_locked(struct sandbox *sb, const struct box_status *status) REQUIRES(sb->lock);
void sandbox_apply_poll(struct sandbox *sb, uint64_t job_generation, int code,
                        const struct box_status *status);
int sandbox_save(struct sandbox *sb, bool sync); /* the record; nothing before its first time */
int sandbox_load(struct fleet *f, const char *key, struct sandbox **ret); /* -EBADMSG damaged */
int sandbox_make_dirs(struct sandbox *sb);

/* poll.c: soon, on a worker; seq of its results, 0: none */
void sandbox_poll(struct sandbox *sb, uint64_t seq);
/* It is there, or a command of it runs, from now on: it is polled more often. */
void sandbox_plan_poll(struct sandbox *sb);

/* queue.c: one FIFO of jobs */
struct job *job_new(enum job_kind kind, struct results *results, uint64_t seq);
void job_free(struct job *j);
void job_end(struct job *j, int code, const char *sentence); /* its line in the results; frees it */
void sandbox_enqueue_locked(struct sandbox *sb, struct job *j, bool first) REQUIRES(sb->lock);
void sandbox_kick(struct sandbox *sb); /* hand the next job to a worker if none runs */
/* What a person made of it, once the queue is empty: down by pause or stop, or up. */
enum box_state sandbox_expected_locked(struct sandbox *sb) REQUIRES(sb->lock);
/* Whether such a job changes the state, and asks the provider for it behind that. */
bool sandbox_job_tells_state(enum job_kind kind);
/* -EHOSTDOWN, -ENODEV, -EBUSY: why a command can't run in this state. 0: it can, or can soon. */
int sandbox_check_state(enum box_state state, bool is_idle_down, bool has_box, struct call *c);
void sandbox_drop_jobs(struct sandbox *sb, int code, const char *sentence);

/*
 * lifecycle.c, destroy.c: what jobs do. Each carries out one call; results and error are said by
 * the caller.
 */
int lifecycle_run(struct sandbox *sb, struct job *j, struct call *c);
/* What goes on inside of its creation. */
void sandbox_say_phase(struct sandbox *sb, const char *phase);
int destroy_run(struct sandbox *sb, struct call *c);
void destroy_accept(struct sandbox *sb, struct results *results, uint64_t seq);
/*
 * It failed: true when it shall be tried again later, which takes over the job; false: it came back
 * as NAME.1.
 */
bool destroy_again(struct sandbox *sb, struct job *j, int code, const char *sentence);
void sandbox_gone(struct sandbox *sb); /* proven: its files and names go */
void sandbox_tell_gone(struct sandbox *sb); /* once; without locks */
/* By our key in the provider's list, attached. -ENOENT: it was never made. */
int sandbox_find_made(struct sandbox *sb, struct call *c, struct box **ret);
/* By its id; one that has none yet, as above. -ENODEV: it is gone. */
int sandbox_reattach(struct sandbox *sb, struct call *c, struct box **ret);
/* JOB_ATTACH once more, later each time. */
void sandbox_plan_attach(struct sandbox *sb);

/* idle.c */
void sandbox_plan_idle_locked(struct sandbox *sb) REQUIRES(sb->lock);
void sandbox_idle_over(struct sandbox *sb);
/* From its own job; false: it is used again, or is to be kept. */
bool sandbox_idle_destroy(struct sandbox *sb);

/* ---- task ---- */

/* What to run, kept until it was sent. */
struct task_request {
        char **argv; /* NULL-terminated */
        char *cwd, *user;
        uint64_t timeout_ns;
        bool ignore_unsent;
        struct pair *env; /* secret */
        size_t env_count;
};

enum stdin_mode { STDIN_NONE, STDIN_OPEN, STDIN_DATA };

struct task {
        atomic_uint refs;
        /* fixed after birth */
        struct sandbox *sandbox;
        uint64_t number;
        char name[NAME_SIZE];
        bool is_named;
        struct exec_sink sink;
        char path[96]; /* of its directory, below the state directory */

        struct output output;
        _Atomic uint64_t changes;
        _Atomic uint64_t output_real_ns;
        struct list news_link; /* guarded by news.lock */
        bool is_news;

        struct mutex record_lock; /* the record on disk */
        struct mutex stdin_lock; /* appends to the spool */

        /* guarded by sandbox->lock */
        enum task_state state;
        uint64_t accepted; /* order in which commands were accepted; 0: new */
        uint64_t started_real_ns, ended_real_ns, changed_real_ns;
        int64_t pid;
        char exec_id[64];
        int64_t skew[2]; /* of output, as last told by the writer */
        char *exit; /* NULL until it is known */
        bool is_visible; /* the end can be seen */
        struct task_request *request; /* until it was sent */
        uint64_t seq; /* of the sandbox's results */

        struct exec *exec; /* released when nobody uses it and `drop_exec` is set */
        unsigned exec_users;
        bool drop_exec;
        bool is_starting; /* exec_start or exec_attach is under way */
        bool needs_attach; /* what a former run started, or may have; or this one, without an answer */
        bool has_end; /* the provider called end */
        struct exec_end end;
        bool is_ending; /* task_finish was begun */
        bool is_removed; /* its files go with the last reference */
        bool needs_sync;
        bool is_claimed; /* a new one that gets its command */

        struct list kills; /* asked for before there was an exec, in their order */
        uint64_t kill_due_ns; /* of the KILL behind a TERM */

        enum stdin_mode stdin_mode;
        uint64_t stdin_size; /* spooled */
        bool has_stdin_eof;
        uint64_t stdin_sent, stdin_taken;
        bool was_eof_sent;
        bool is_taken_known; /* after a re-attach: not before the provider told */
        bool is_pumping;
};

void task_init_sink(struct task *t);
/* one reference, the table's */
struct task *task_new(struct sandbox *sb, uint64_t number, const char *name);
void task_free_table(struct task *t); /* gives the table's reference back */
void task_get_locked(struct task *t, struct task_info *ret);
void task_change_locked(struct task *t);

/* tasks.c: the table */
/* takes over the table's reference; -EEXIST, -ENOMEM */
int tasks_insert_locked(struct sandbox *sb, struct task *t) REQUIRES(sb->lock);
/* removes what is beyond the 64 and the 1 GiB that are kept */
void sandbox_retain(struct sandbox *sb);
void sandbox_sync_tasks(struct sandbox *sb);

/* request.c */
int task_request_new(const struct task_options *o, struct task_request **ret); /* -ENOMEM */
void task_request_free(struct task_request *q); /* wipes */
/* The text that `cmd` shows. */
int task_request_print(const struct task_options *o, struct buf *to);

/* task_record.c */
int task_save(struct task *t, bool sync);
int tasks_load(struct sandbox *sb);
int task_open_dir(struct task *t); /* a descriptor or -errno */
int task_make_dir(struct task *t);
void task_forget_record(struct task *t); /* a restart will not know it */
void task_remove_files(struct fleet *f, const char *path);

/* task_run.c */
void task_run(struct task *t, struct call *c); /* JOB_EXEC: start it; what fails becomes its end */
bool task_attach(struct task *t, struct call *c); /* after a restart; false: try again later */

/* task_end.c */
struct exec *task_exec_get(struct task *t); /* NULL: there is none; else task_exec_put */
void task_exec_put(struct task *t);
void task_let_go(struct task *t); /* its exec is released, the command runs on */
/* On a worker; t->end and is_ending are set by the caller, and no output comes any more. */
void task_finish(struct task *t);
void task_finish_job(void *arg); /* the same, with a reference that it gives back */
void task_end_begun(
        struct task *t,
        const struct exec_end *end); /* soon, on a worker; the caller has set is_ending */
/* on this worker; unless it is ending already */
void task_end_now(struct task *t, const struct exec_end *end);
void sandbox_end_tasks(struct sandbox *sb, const struct exec_end *end); /* all of them, now */
void sandbox_lose_tasks(struct sandbox *sb); /* all that run: it is down */

/* task_kill.c */
void task_send_kills(struct task *t); /* those that waited for it to run; on a worker */
void task_end_kills(struct task *t); /* it has ended without them */
void task_drop_kills(struct task *t);

/* task_stdin.c */
/* send on what the provider takes now; on any thread without locks */
void task_stdin_pump(struct task *t);
int task_spool_stdin(struct task *t, const void *data, size_t size);
