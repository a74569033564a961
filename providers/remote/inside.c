/* SPDX-License-Identifier: Apache-2.0 */
/* How our program is reached in a sandbox; and what of the table is made of it. */

#include <errno.h>
#include <string.h>

#include "providers/inside/files.h"
#include "providers/inside/talk.h"
#include "providers/remote/content.h"
#include "providers/remote/direct.h"
#include "providers/remote/polled.h"
#include "providers/remote/private.h"
#include "providers/remote/remote.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

#define TRIES 3

static int check_runs(struct box *box, struct call *c)
{
        struct remote_box *b = remote_box_of(box);
        int r = remote_check_runs(b, c);

        if (r == 0)
                remote_touch(b);
        return r;
}

static int facts(struct box *b, struct call *c, struct inside_facts *ret)
{
        struct remote_place place;
        int r = remote_place(remote_box_of(b), c, &place);

        if (r == 0)
                *ret = (struct inside_facts){.workdir = place.workdir, .user = place.user};
        return r;
}

/* ---- the holder ---- */

static int join(struct box *b, struct call *c, const struct stream_events *events,
                struct stream **ret)
{
        char init[REMOTE_PATH_SIZE];
        const char *const argv[] = {init, "join", remote_dir(remote_box_of(b)), NULL};
        const struct remote_program p = {.argv = argv, .cwd = "/", .has_stdin = true};
        int r = -EIO;

        remote_init_path(remote_box_of(b), init);
        if (atomic_load(&remote_box_of(b)->is_foreign))
                return call_fail(c, -EOPNOTSUPP, "our program can't run in this sandbox");
        for (unsigned i = 0; i < TRIES && remote_is_passing(r) && (i == 0 || call_check(c) == 0);
             i++)
                r = remote_box_of(b)->remote->ops->open(remote_box_of(b), c, REMOTE_ROOT, &p,
                                                        events, ret);
        if (r == 0) { /* who runs commands looks at files next */
                atomic_store(&remote_box_of(b)->is_cold, true);
                remote_wake(remote_box_of(b));
        }
        if (r == -EOPNOTSUPP) /* the service has no streams of programs, and gets none */
                atomic_store(&remote_box_of(b)->is_foreign, true);
        return r;
}

static bool is_frozen(struct box *b)
{
        enum box_state state = remote_state_of(remote_box_of(b));

        return state == BOX_PAUSED || state == BOX_PAUSING || state == BOX_RESUMING;
}

/* It is not there: adopted just now, or resumed without its memory. */
static int revive(struct box *box, struct call *c, int error)
{
        struct remote_box *b = remote_box_of(box);

        if (remote_state_of(b) != BOX_RUNNING ||
            (error != -EHOSTDOWN && error != -ENOENT && error != -EINVAL))
                return error;
        c->sentence[0] = '\0';
        return remote_put_init(b, c);
}

/* ---- files ---- */

static int open_files(struct box *box, struct call *c, const struct stream_events *events,
                      struct stream **ret)
{
        struct remote_box *b = remote_box_of(box);
        struct remote_place place;
        char init[REMOTE_PATH_SIZE];
        int r = remote_place(b, c, &place);

        if (r == 0 && atomic_load(&b->is_foreign))
                r = call_fail(c, -EOPNOTSUPP, "our program can't run in this sandbox");
        if (r == 0 && b->remote->has_no_agent)
                r = call_fail(c, -EOPNOTSUPP, "our program isn't to be used");
        if (r == 0)
                r = talk_connect(b->talk, c); /* it is put there by who talks first */
        if (r < 0)
                return r;
        remote_init_path(b, init);
        const char *const argv[] = {init, "files", place.workdir, NULL};
        const struct remote_program p = {.argv = argv, .cwd = "/", .has_stdin = true};

        return b->remote->ops->open(b, c, place.user, &p, events, ret);
}

static ssize_t download(struct box *box, struct call *c, const char *path, void *data, size_t size,
                        uint64_t offset)
{
        struct remote_box *b = remote_box_of(box);
        struct content_window w = content_window(data, size, offset);
        struct remote_place place;
        int r = remote_place(b, c, &place);

        if (r == 0)
                r = b->remote->ops->download(b, c, place.user, path, &w.range, &w.sink);
        return r < 0 ? r : (ssize_t)w.got;
}

static int upload(struct box *box, struct call *c, const char *path, struct file_source *from)
{
        struct remote_box *b = remote_box_of(box);
        struct content_source source = content_of_file(from, c);
        struct remote_place place;
        int r = remote_place(b, c, &place);

        return r < 0 ? r : b->remote->ops->upload(b, c, place.user, path, &source.base);
}

static int open_shell(struct box *box, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret)
{
        struct remote_box *b = remote_box_of(box);
        const char *const argv[] = {"sh", "-c", command, NULL};
        const struct remote_program p = {.argv = argv, .cwd = "/", .has_stdin = true};
        struct remote_place place;
        int r = remote_place(b, c, &place);

        return r < 0 ? r : b->remote->ops->open(b, c, place.user, &p, events, ret);
}

static struct shell_runner *scripts(struct box *b)
{
        return &remote_box_of(b)->by_scripts;
}

/* ---- news ---- */

static void wake(struct box *b)
{
        remote_wake(remote_box_of(b));
}

static void look(struct box *b, struct call *c)
{
        struct box_status status;

        if (remote_look(remote_box_of(b), c, &status) < 0)
                log_debug(remote_box_of(b)->remote->ops->name, "%s: %s, ignoring", b->id,
                          c->sentence);
}

static void missed(struct box *b)
{
        const struct provider_listener *to = &remote_box_of(b)->remote->listener;

        if (to->box_changed)
                to->box_changed(to->ctx, b->id);
}

const struct inside_ops remote_inside = {
        .name = "remote",
        .check_runs = check_runs,
        .facts = facts,
        .join = join,
        .revive = revive,
        .open_files = open_files,
        .download = download,
        .upload = upload,
        .open_shell = open_shell,
        .scripts = scripts,
        .wake = wake,
        .look = look,
        .missed = missed,
        .is_frozen = is_frozen,
};

/* ---- the table's ---- */

int remote_exec_start(struct box *b, struct call *c, const struct exec_req *in,
                      struct exec_sink *to, struct exec **ret)
{
        struct remote_box *r = remote_box_of(b);
        int error = talk_exec_start(r->talk, c, in, to, ret);

        if (error != -EOPNOTSUPP || !atomic_load(&r->is_foreign))
                return error;
        c->sentence[0] = '\0';
        error = direct_exec_start(r, c, in, to, ret);
        if (error != -EOPNOTSUPP)
                return error;
        c->sentence[0] = '\0'; /* there are no streams of programs */
        return polled_exec_start(r, c, in, to, ret);
}

int remote_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                       const uint64_t have[2], struct exec_sink *to, struct exec **ret)
{
        if (polled_exec_is(id))
                return polled_exec_attach(remote_box_of(b), c, id, have, to, ret);
        if (direct_exec_is(id))
                return call_fail(c, -ENOENT,
                                 "it was a command of the service's own: it ended with sbxfs");
        return talk_exec_attach(remote_box_of(b)->talk, c, number, have, to, ret);
}

int remote_exec_write(struct exec *x, struct call *c, const void *data, size_t size, bool is_last)
{
        if (polled_exec_is(x->id))
                return call_fail_errno(c, -EPIPE, "stdin");
        return direct_exec_is(x->id) ? direct_exec_write(x, c, data, size, is_last)
                                     : talk_exec_write(x, c, data, size, is_last);
}

int remote_exec_signal(struct exec *x, struct call *c, int signal)
{
        if (polled_exec_is(x->id))
                return polled_exec_signal(x, c, signal);
        return direct_exec_is(x->id) ? direct_exec_signal(x, c, signal)
                                     : talk_exec_signal(x, c, signal);
}

void remote_exec_release(struct exec *x)
{
        if (polled_exec_is(x->id))
                polled_exec_release(x);
        else if (direct_exec_is(x->id))
                direct_exec_release(x);
        else
                talk_exec_release(x);
}

int remote_list_files(struct box *b, struct call *c, const struct file_listing *what,
                      struct file_list_sink *to)
{
        return inside_list(remote_box_of(b)->files, c, what, to);
}

int remote_box_stat(struct box *b, struct call *c, const char *path, struct stat *ret)
{
        return inside_stat(remote_box_of(b)->files, c, path, ret);
}

int remote_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size)
{
        return inside_readlink(remote_box_of(b)->files, c, path, ret, size);
}

int remote_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
                 size_t size_max, struct file_sink *to)
{
        return inside_fetch(remote_box_of(b)->files, c, paths, count, size_max, to);
}

int remote_file_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                     struct stat *ret_st)
{
        return inside_file_open(remote_box_of(b)->files, c, path, ret, ret_st);
}

int remote_apply(struct box *b, struct call *c, struct change *changes, size_t count)
{
        return inside_apply(remote_box_of(b)->files, c, changes, count);
}

int remote_statfs(struct box *b, struct call *c, struct statvfs *ret)
{
        return inside_statfs(remote_box_of(b)->files, c, ret);
}

int remote_workdir(struct box *b, struct call *c, char *ret, size_t size)
{
        struct remote_place place;

        if (!remote_known_place(remote_box_of(b), &place))
                return call_fail(c, -EINPROGRESS, "the sandbox was not asked yet");
        if (strlen(place.workdir) >= size)
                return call_fail(c, -ENAMETOOLONG, "the working directory's path is too long");
        memcpy(ret, place.workdir, strlen(place.workdir) + 1);
        return 0;
}
