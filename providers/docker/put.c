/* SPDX-License-Identifier: Apache-2.0 */
/* Our program, put into a container by the archive API: works with any image, running or not. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "providers/docker/box.h"
#include "providers/docker/engine.h"
#include "transport/archive/tar.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/http/url.h"

#define PROGRAM_MAX ((size_t)16 << 20)

/* Where it is: beside the other helpers, or in a build directory. */
static int read_program(const struct docker_provider *d, struct call *c, struct buf *to)
{
        static const char *const places[] = {"sbxfs-init", "../docker/sbxfs-init"};
        char path[4096] = "";
        int r = -ENOENT;

        for (size_t i = 0; r == -ENOENT && i < sizeof(places) / sizeof(places[0]); i++) {
                (void)snprintf(path, sizeof(path), "%s/%s", d->helper_dir, places[i]);
                r = file_read(AT_FDCWD, path, to);
        }
        return r < 0 ? call_fail_errno(c, r, "%s", path) : 0;
}

struct archive {
        struct tar_out out;
        struct buf bytes;
};

static int on_bytes(struct tar_out *to, const void *data, size_t size)
{
        return buf_add(&container_of(to, struct archive, out)->bytes, data, size);
}

static void free_writer(struct tar_writer **w)
{
        tar_writer_free(*w);
}

/* `dir` and in it the program; `dir` without its '/'. "": only the program. */
static int pack(const char *dir, const struct buf *program, struct archive *a)
{
        _cleanup_(free_writer) struct tar_writer *w = NULL;
        char name[256];
        struct tar_entry e = {.name = dir, .mode = 0755, .mtime = {.tv_sec = 1}, .is_dir = true};
        int r = tar_writer_new(&a->out, &w);

        if (r == 0 && *dir)
                r = tar_add(w, &e);
        (void)snprintf(name, sizeof(name), "%s%sinit", dir, *dir ? "/" : "");
        e = (struct tar_entry){
                .name = name, .mode = 0755, .mtime = {.tv_sec = 1}, .size = program->size};
        if (r == 0)
                r = tar_add(w, &e);
        if (r == 0)
                r = tar_write(w, program->data, program->size);
        return r == 0 ? tar_finish(w) : r;
}

static int send(struct docker_box *b, struct call *c, const char *at, const struct archive *a,
                unsigned *ret_status)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        const struct engine_ask ask = {.method = "PUT",
                                       .path = &path,
                                       .data = a->bytes.data,
                                       .size = a->bytes.size,
                                       .type = "application/x-tar",
                                       .is_idempotent = true};
        int r = box_path(b, &path, "/archive");

        if (r == 0)
                r = url_add_query(&path, "path", at);
        if (r == 0)
                r = engine_ask(b->docker->engine, c, &ask, &reply, NULL);
        *ret_status = reply.status;
        return r == -ENOENT ? box_missing(b, c, r, reply.status) : r;
}

static void archive_done(struct archive *a)
{
        buf_done(&a->bytes);
}

int put_init(struct docker_box *b, struct call *c, const char *dir)
{
        _cleanup_(buf_done) struct buf program = BUF_INIT(PROGRAM_MAX);
        _cleanup_(archive_done) struct archive a = {.out = {.data = on_bytes},
                                                    .bytes = BUF_INIT(PROGRAM_MAX + 65536)};
        unsigned status = 0;
        int r = read_program(b->docker, c, &program);

        if (r == 0)
                r = pack(dir + 1, &program, &a);
        if (r == 0)
                r = send(b, c, "/", &a, &status);
        if (r < 0 && status >= 400 && strcasestr(c->sentence, "read-only")) {
                /* A read-only root: ours is a volume there. */
                c->sentence[0] = '\0';
                buf_clear(&a.bytes);
                r = pack("", &program, &a);
                if (r == 0)
                        r = send(b, c, dir, &a, &status);
        }
        if (r < 0 && !c->sentence[0])
                return call_fail_errno(c, r, "putting our program into the container");
        return r < 0 ? call_wrap(c, r, "putting our program into the container") : 0;
}
