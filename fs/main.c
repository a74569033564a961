/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbxfs: sandboxes as directories.
 *
 * The layers, each of which calls only those below it; news goes up through tables of functions:
 *
 *      fs/mount/       the kernel's side: requests, replies, those that wait  struct session
 *      fs/tree/        names -> nodes, open files                            struct tree
 *      fs/control/     the files that people talk to: ctl, status, exec/<n>/...
 *      fs/volume/      the files under fs/
 *      fs/sandbox/     sandboxes, their commands, what is kept on disk       struct fleet
 *      providers/      services that sandboxes come from
 *      transport/      moving bytes; base/: what all use, threads among it    struct workers
 *
 * This file wires them, from the bottom of a mount's life to its end, and is the only one that ends
 * the program in peace.
 */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/daemon.h"
#include "fs/mount/session.h"
#include "fs/options.h"
#include "fs/sandbox/fleet.h"
#include "fs/tree/tree.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/base/worker.h"

#define FAST_WORKERS 32
#define SLOW_WORKERS 16
#define FILE_WORKERS 64 /* a quarter at most for one sandbox: SHARE_WORKERS */
#define WORKERS_END_NS (5 * NS_PER_S)

/* One mount; what comes first is made first and freed last. */
struct program {
        struct options options;
        struct daemon daemon;
        char helper_dir[PATH_MAX];
        struct workers *workers;
        struct session *session;
        struct tree *tree;
        struct fleet *fleet;
};

/* ---- what the layers are told ---- */

static int reload(void *ctx, struct call *c)
{
        const struct options *o = ctx;

        return options_reload(o, c);
}

static void stop(void *ctx)
{
        session_stop(ctx);
}

/* Where sbxfs-holder is: beside us in a build directory, or where it was installed. */
static int find_helpers(struct program *p, struct call *c)
{
        static const char *const places[] = {"../providers/local", "../libexec/sbxfs", "."};
        char self[PATH_MAX], path[PATH_MAX + 64];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        char *slash;

        if (n < 0)
                return call_fail_errno(c, -errno, "/proc/self/exe");
        self[n] = '\0';
        slash = strrchr(self, '/');
        if (slash)
                *slash = '\0';
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                /* it fits */
                (void)snprintf(path, sizeof(path), "%s/%s/sbxfs-holder", self, places[i]);
                if (access(path, X_OK) == 0 &&
                    (size_t)snprintf(p->helper_dir, sizeof(p->helper_dir), "%s/%s", self,
                                     places[i]) < sizeof(p->helper_dir))
                        return 0;
        }
        /* the build's own */
        (void)snprintf(p->helper_dir, sizeof(p->helper_dir), "%s", SBXFS_HELPER_DIR);
        return 0;
}

static struct fleet_config fleet_config(const struct program *p,
                                        const struct fleet_section *sections,
                                        const struct pair *uid_range)
{
        const struct options *o = &p->options;

        return (struct fleet_config){
                .state_path = o->state_path,
                .default_provider = o->provider,
                .sections = sections,
                .section_count = o->config.count,
                .allow = o->allow,
                .max_sandboxes = o->max_sandboxes,
                .on_unmount = o->on_unmount,
                .output_cap = o->output_cap,
                .helper_dir = p->helper_dir,
                .mountpoint = o->mountpoint,
                .provider_options = uid_range,
                .provider_option_count = o->uid_range ? 1 : 0,
        };
}

static struct tree_config tree_config(const struct options *o)
{
        return (struct tree_config){
                .uid = geteuid(),
                .gid = getegid(),
                .shown_uid = o->uid != (uid_t)-1 ? o->uid : geteuid(),
                .shown_gid = o->gid != (gid_t)-1 ? o->gid : getegid(),
                .shown_umask = o->umask,
                .allow_other = o->allow_other,
                .is_readonly = o->is_readonly,
                .has_raw_symlinks = o->has_raw_symlinks,
                .is_sync = o->is_sync,
                .attr_ttl_ns = o->attr_timeout_ns,
        };
}

/* ---- a mount's life ---- */

static int open_fleet(struct program *p, struct call *c)
{
        _cleanup_(freep) struct fleet_section *sections = config_fleet_sections(&p->options.config);
        _cleanup_(freep) char *key = strdup("uid-range");
        struct pair uid_range = {.key = key, .value = p->options.uid_range};
        struct fleet_config config = fleet_config(p, sections, &uid_range);

        if (!sections || !key)
                return call_fail(c, -ENOMEM, "out of memory");
        return fleet_open(&config, tree_listener(p->tree), p->workers, c, &p->fleet);
}

static int set_up(struct program *p, struct call *c)
{
        static const unsigned lanes[WORKER_LANES] = {
                [WORKER_FAST] = FAST_WORKERS,
                [WORKER_SLOW] = SLOW_WORKERS,
                [WORKER_FILES] = FILE_WORKERS,
        };
        const struct tree_config tree = tree_config(&p->options);
        int r = workers_new(lanes, &p->workers);
        const struct session_config session = {
                .mountpoint = p->options.mountpoint,
                .allow_other = p->options.allow_other,
                .is_readonly = p->options.is_readonly,
                .no_exec = p->options.no_exec,
                .workers = p->workers,
                .reload = reload,
                .reload_ctx = &p->options,
        };

        if (r == 0)
                r = session_new(&session, &p->session);
        if (r == 0)
                r = daemon_watch_signals(&p->daemon, stop, p->session);
        if (r == 0)
                r = tree_new(&tree, session_events(p->session), p->workers, &p->tree);
        if (r < 0)
                return call_fail_errno(c, r, "start");
        r = open_fleet(p, c);
        if (r < 0)
                return r;
        tree_start(p->tree, p->fleet);
        return session_mount(p->session, p->tree, c);
}

/*
 * From an unmount, or from where set_up failed. What was written is sent in any case. False: a
 * thread is stuck, in the session (!is_clean) or behind it, and nothing that it may use is freed.
 */
static bool tear_down(struct program *p, bool is_clean)
{
        if (p->fleet)
                is_clean &= fleet_drain(p->fleet, clock_after(p->options.drain_ns));
        if (!is_clean)
                return false;
        if (p->fleet)
                tree_stop(p->tree);
        if (p->workers && !workers_free(p->workers, clock_after(WORKERS_END_NS)))
                return false;
        fleet_close(p->fleet);
        daemon_forget_stop(&p->daemon);
        tree_free(p->tree);
        session_free(p->session);
        options_done(&p->options);
        return true;
}

/* Each open file and each sandbox takes a descriptor. */
static void raise_limits(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
                return;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                log_debug("main", "RLIMIT_NOFILE: %s, ignoring", errno_name(errno));
}

static int fail(const struct call *c)
{
        (void)fprintf(stderr, "sbxfs: %s\n", c->sentence); /* nowhere else to say it */
        return EXIT_FAILURE;
}

/* Mount, serve, unmount: the exit status. */
static int run(struct program *p, struct call *c)
{
        if (set_up(p, c) < 0) {
                int status = fail(c);

                (void)tear_down(p, true); /* what is stuck ends with the process */
                return status;
        }
        if (p->daemon.ready >= 0 && chdir("/") < 0)
                log_warning("/: %s, ignoring", errno_name(errno));
        daemon_ready(&p->daemon);
        if (!tear_down(p, session_run(p->session)))
                log_warning("%s: something is stuck, ending without it", p->options.mountpoint);
        return EXIT_SUCCESS;
}

/* --help and --version. */
static int print(const struct options *o)
{
        if (o->wants_help)
                options_print_help(stdout);
        else
                (void)printf("sbxfs %s\n", SBXFS_VERSION); /* seen by fflush */
        return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
        struct program p = {.daemon = {.ready = -1}};
        struct options *o = &p.options;
        struct call c;

        call_init(&c, NEVER_NS);
        options_init(o);
        if (options_parse(o, argc, argv, &c) < 0)
                return fail(&c);
        if (o->wants_help || o->wants_version)
                return print(o);
        log_setup(o->is_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, o->debug_topics,
                  !o->is_foreground);
        if (options_complete(o, &c) < 0 || find_helpers(&p, &c) < 0)
                return fail(&c);
        (void)umask(0); /* modes are said where files are made */
        raise_limits();
        if (!o->is_foreground) {
                int r = daemon_start(&p.daemon);

                if (r < 0) {
                        (void)call_fail_errno(&c, r, "go to the background"); /* said below */
                        return fail(&c);
                }
        }
        return run(&p, &c);
}
