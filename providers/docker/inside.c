/* SPDX-License-Identifier: Apache-2.0 */
/* How our program is reached in a container, by Docker execs; and what of the table is made of it. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "providers/docker/box.h"
#include "providers/docker/engine.h"
#include "providers/inside/files.h"
#include "providers/inside/talk.h"
#include "transport/base/log.h"

#define PLACE_SIZE 48

/* Where our program and the holder are: process 1's own place, or one by our owner's id. */
static void place(const struct docker_box *b, const struct docker_facts *f, char ret[PLACE_SIZE])
{
        (void)snprintf(ret, PLACE_SIZE, f->has_init ? DOCKER_DIR : DOCKER_DIR "-%s",
                       b->docker->owner);
}

static int check_runs(struct box *b, struct call *c)
{
        return docker_box_check_runs(docker_box_of(b), c);
}

static int facts(struct box *b, struct call *c, struct inside_facts *ret)
{
        const struct docker_facts *f = NULL;
        int r = docker_box_facts(docker_box_of(b), c, &f);

        if (r == 0 && f)
                *ret = (struct inside_facts){.workdir = f->workdir, .user = f->user};
        return r;
}

/* ---- the holder ---- */

static int join(struct box *box, struct call *c, const struct stream_events *events,
                struct stream **ret)
{
        struct docker_box *b = docker_box_of(box);
        const struct docker_facts *f = NULL;
        char dir[PLACE_SIZE], init[64];
        const char *const argv[] = {init, "join", dir, NULL};
        int r = docker_box_facts(b, c, &f);

        if (r < 0 || !f)
                return r;
        place(b, f, dir);
        (void)snprintf(init, sizeof(init), "%s/init", dir);
        return program_open(b, engine_streams(b->docker->engine), c, argv, "0", "/", events, ret);
}

/*
 * Nobody is there yet: adopted just now, or started again. A container that isn't of our making has
 * a holder beside its process 1, by our own name.
 */
static int revive(struct box *box, struct call *c, int error)
{
        struct docker_box *b = docker_box_of(box);
        const struct docker_facts *f = docker_box_known_facts(b);
        char dir[PLACE_SIZE], init[64];
        int r;

        if (!f || f->has_init || (error != -EHOSTDOWN && error != -ENOENT && error != -EINVAL))
                return error;
        c->sentence[0] = '\0';
        place(b, f, dir);
        const char *const argv[] = {init, "stay", dir, f->workdir, f->user, NULL};

        (void)snprintf(init, sizeof(init), "%s/init", dir);
        r = put_init(b, c, dir);
        return r < 0 ? r : program_launch(b, c, argv, "0");
}

/* ---- files ---- */

static int open_files(struct box *box, struct call *c, const struct stream_events *events,
                      struct stream **ret)
{
        struct docker_box *b = docker_box_of(box);
        char dir[PLACE_SIZE], init[64];
        const char *argv[] = {init, "files", NULL, NULL};
        const struct docker_facts *f = NULL;
        int r = docker_box_facts(b, c, &f);

        if (r == 0 && b->docker->has_no_agent)
                r = call_fail(c, -EOPNOTSUPP, "our program isn't to be used");
        if (r == 0 && !f->has_init) /* it is put there by who talks first */
                r = talk_connect(b->talk, c);
        if (r < 0 || !f)
                return r;
        place(b, f, dir);
        (void)snprintf(init, sizeof(init), "%s/init", dir);
        argv[2] = f->workdir;
        return docker_open_program(b, c, argv, NULL, events, ret);
}

/* It says what it says of the machine that it is on, which may be another. */
static int pid_of(struct box *box, struct call *c, struct stream *of, pid_t *ret)
{
        struct docker_box *b = docker_box_of(box);

        return b->docker->has_direct ? program_pid(b, c, of, ret) : -EOPNOTSUPP;
}

static int open_shell(struct box *b, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret)
{
        const char *const argv[] = {"sh", "-c", command, NULL};

        return docker_open_program(docker_box_of(b), c, argv, NULL, events, ret);
}

/* ---- news ---- */

static void wake(struct box *b)
{
        docker_wake(docker_box_of(b));
}

static void look(struct box *b, struct call *c)
{
        struct box_status status;

        if (box_inspect(docker_box_of(b), c, &status) < 0)
                log_debug("docker", "%s: %s, ignoring", b->id, c->sentence);
}

static void missed(struct box *b)
{
        docker_box_missed(docker_box_of(b));
}

static bool is_frozen(struct box *box)
{
        struct docker_box *b = docker_box_of(box);
        bool is_paused;

        mutex_lock(&b->lock);
        is_paused = b->state == BOX_PAUSED;
        mutex_unlock(&b->lock);
        return is_paused;
}

const struct inside_ops docker_inside = {
        .name = "docker",
        .check_runs = check_runs,
        .facts = facts,
        .join = join,
        .revive = revive,
        .open_files = open_files,
        .pid = pid_of,
        .open_shell = open_shell,
        .wake = wake,
        .look = look,
        .missed = missed,
        .is_frozen = is_frozen,
};

/* ---- the table's ---- */

int docker_exec_start(struct box *b, struct call *c, const struct exec_req *in,
                      struct exec_sink *to, struct exec **ret)
{
        return talk_exec_start(docker_box_of(b)->talk, c, in, to, ret);
}

int docker_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                       const uint64_t have[2], struct exec_sink *to, struct exec **ret)
{
        (void)id; /* it is the number */
        return talk_exec_attach(docker_box_of(b)->talk, c, number, have, to, ret);
}

int docker_list_files(struct box *b, struct call *c, const struct file_listing *what,
                      struct file_list_sink *to)
{
        return inside_list(docker_box_of(b)->files, c, what, to);
}

int docker_stat(struct box *b, struct call *c, const char *path, struct stat *ret)
{
        return inside_stat(docker_box_of(b)->files, c, path, ret);
}

int docker_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size)
{
        return inside_readlink(docker_box_of(b)->files, c, path, ret, size);
}

int docker_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
                 size_t size_max, struct file_sink *to)
{
        return inside_fetch(docker_box_of(b)->files, c, paths, count, size_max, to);
}

int docker_file_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                     struct stat *ret_st)
{
        return inside_file_open(docker_box_of(b)->files, c, path, ret, ret_st);
}

int docker_apply(struct box *b, struct call *c, struct change *changes, size_t count)
{
        return inside_apply(docker_box_of(b)->files, c, changes, count);
}

int docker_statfs(struct box *b, struct call *c, struct statvfs *ret)
{
        return inside_statfs(docker_box_of(b)->files, c, ret);
}

int docker_workdir(struct box *b, struct call *c, char *ret, size_t size)
{
        const struct docker_facts *facts = docker_box_known_facts(docker_box_of(b));

        if (!facts)
                return call_fail(c, -EINPROGRESS, "the engine was not asked yet");
        if (strlen(facts->workdir) >= size)
                return call_fail(c, -ENAMETOOLONG, "the working directory's path is too long");
        memcpy(ret, facts->workdir, strlen(facts->workdir) + 1);
        return 0;
}
