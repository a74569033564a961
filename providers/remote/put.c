/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our program, put into a sandbox and started. It comes under a name of its own and is moved over
 * what is there, which may be running.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "providers/remote/content.h"
#include "providers/remote/private.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/random.h"

#define PROGRAM_MAX ((size_t)16 << 20)

/* Where it is: beside the other helpers, or in a build directory. */
static int read_program(const struct remote *p, struct call *c, struct buf *to)
{
        static const char *const places[] = {"sbxfs-init", "../docker/sbxfs-init"};
        char path[4096] = "";
        int r = -ENOENT;

        for (size_t i = 0; r == -ENOENT && i < sizeof(places) / sizeof(places[0]); i++) {
                (void)snprintf(path, sizeof(path), "%s/%s", p->helper_dir, places[i]);
                r = file_read(AT_FDCWD, path, to);
        }
        return r < 0 ? call_fail_errno(c, r, "%s", path) : 0;
}

const char *remote_dir(const struct remote_box *b)
{
        return b->remote->ops->dir ? b->remote->ops->dir : REMOTE_DIR;
}

void remote_init_path(const struct remote_box *b, char ret[REMOTE_PATH_SIZE])
{
        (void)snprintf(ret, REMOTE_PATH_SIZE, "%s/init", remote_dir(b)); /* a constant of ours */
}

static int launch(struct remote_box *b, struct call *c, const char *from)
{
        static const char script[] =
                "if [ -e \"$1\" ]; then chmod 755 \"$1\" && mv -f \"$1\" \"$0\" || exit; fi; "
                "exec \"$0\" serve \"$2\" \"$3\" \"$4\"";
        struct remote_place place;
        char init[REMOTE_PATH_SIZE];
        int code = 0, r = remote_place(b, c, &place);

        if (r < 0)
                return r;
        remote_init_path(b, init);
        const char *const argv[] = {"sh",          "-c",          script,     init, from,
                                    remote_dir(b), place.workdir, place.user, NULL};
        const struct remote_program p = {
                .argv = argv,
                .cwd = "/",
                .env = {{"USER", place.user}, {"LOGNAME", place.user}, {NULL, NULL}}};

        r = b->remote->ops->run(b, c, REMOTE_ROOT, &p, NULL, &code);
        if (r < 0)
                return r;
        if (code == 0)
                return 0;
        atomic_store(&b->is_foreign, true); /* another architecture, no root: it stays so */
        return call_wrap(c, -EOPNOTSUPP, "our program can't run in this sandbox: code %d", code);
}

bool remote_is_passing(int r)
{
        return r == -EHOSTUNREACH || r == -EIO || r == -EPROTO;
}

/* Of what we put there, not of the way or the sandbox. */
static bool is_refusal(int r)
{
        switch (r) {
        case -EPERM:
        case -EINVAL:
        case -ENOENT:
        case -ENOTDIR:
        case -EROFS:
        case -EFBIG:
        case -E2BIG:
        case -EOPNOTSUPP: return true;
        default: return false;
        }
}

int remote_put_init(struct remote_box *b, struct call *c)
{
        _cleanup_(buf_done) struct buf program = BUF_INIT(PROGRAM_MAX);
        struct content_source source;
        char mark[RANDOM_ID_SIZE], init[REMOTE_PATH_SIZE], to[REMOTE_PATH_SIZE + RANDOM_ID_SIZE];
        int r = random_id(mark);

        if (atomic_load(&b->is_foreign))
                return call_fail(c, -EOPNOTSUPP, "our program can't run in this sandbox");
        if (r < 0)
                return call_fail_errno(c, r, "a name");
        remote_init_path(b, init);
        (void)snprintf(to, sizeof(to), "%s-%s", init, mark);
        r = read_program(b->remote, c, &program);
        source = content_of_memory(program.data, program.size);
        if (r == 0)
                r = b->remote->ops->upload(b, c, REMOTE_ROOT, to, &source.base);
        if (is_refusal(r)) {
                atomic_store(&b->is_foreign, true);
                r = -EOPNOTSUPP;
        }
        if (r < 0)
                return call_wrap(c, r, "putting our program into the sandbox");
        return launch(b, c, to);
}
