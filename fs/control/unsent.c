/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/control/unsent.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/volume.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/escape.h"

#define SHOWN_MAX (4 * PATH_MAX) /* a path, each byte of it escaped */
#define LINE_MAX_SIZE (SHOWN_MAX + ESCAPE_LINE_MAX + 64)
#define NAMED_MAX 300 /* bytes of a path in a sentence */

static void name_all(struct volume *v, struct vol_unsent_sink *to)
{
        if (v && v->ops->unsent)
                v->ops->unsent(v, to);
}

/* fs/ itself is "" to the volume. */
static const char *shown(const char *path)
{
        return path[0] ? path : ".";
}

int unsent_reason(struct buf *to, int error, const char *sentence)
{
        const char *text = strerrordesc_np(-error);

        if (!text || strstr(sentence, text))
                return buf_add_str(to, sentence);
        return buf_addf(to, sentence[0] ? "%s: %s" : "%s%s", text, sentence);
}

/* ---- the file ---- */

struct printing {
        struct vol_unsent_sink head; /* first */
        struct buf *to;
        char *path; /* of SHOWN_MAX */
        uint64_t left; /* there was no room for these */
        int error;
};

static int print_line(struct printing *p, const char *path, int error, const char *sentence)
{
        struct buf reason = BUF_INIT(2 * ESCAPE_LINE_MAX);
        char line[ESCAPE_LINE_MAX + 1];
        int r;

        escape_text(shown(path), strlen(shown(path)), p->path, SHOWN_MAX);
        r = buf_addf(p->to, "%s: ", p->path);
        if (r == 0)
                r = unsent_reason(&reason, error, sentence);
        escape_sentence(buf_str(&reason), reason.size, line, sizeof(line));
        if (r == 0)
                r = buf_add_str(p->to, line);
        buf_done(&reason);
        return r == 0 ? buf_add_char(p->to, '\n') : r;
}

static void print_one(struct vol_unsent_sink *to, const char *path, int error, const char *sentence)
{
        struct printing *p = (struct printing *)(void *)to; /* its head */

        if (p->left > 0 || p->to->max - p->to->size < (size_t)2 * LINE_MAX_SIZE)
                p->left++;
        else if (p->error == 0)
                p->error = print_line(p, path, error, sentence);
}

int unsent_print(struct volume *v, struct buf *to)
{
        _cleanup_(freep) char *path = malloc(SHOWN_MAX);
        struct printing p = {.head = {print_one}, .to = to, .path = path};

        if (!path)
                return -ENOMEM;
        name_all(v, &p.head);
        if (p.error == 0 && p.left > 0)
                p.error = buf_addf(to, "... and %" PRIu64 " more\n", p.left);
        return p.error;
}

/* ---- the end of a command ---- */

struct naming {
        struct vol_unsent_sink head; /* first */
        uint64_t count;
        int error; /* of the first */
        char path[NAMED_MAX + 4];
};

static void name_one(struct vol_unsent_sink *to, const char *path, int error, const char *sentence)
{
        struct naming *n = (struct naming *)(void *)to; /* its head */
        bool is_long = strlen(path) > NAMED_MAX;

        (void)sentence; /* `unsent` has it */
        if (n->count++ > 0)
                return;
        n->error = error;
        (void)snprintf(n->path, sizeof(n->path), "%.*s%s", NAMED_MAX, shown(path),
                       is_long ? "..." : "");
}

int unsent_check(struct volume *v, struct call *c)
{
        struct naming n = {.head = {name_one}};
        char more[64] = "";
        const char *why;

        name_all(v, &n.head);
        if (n.count == 0)
                return 0;
        why = strerrordesc_np(-n.error);
        if (n.count > 1)
                (void)snprintf(more, sizeof(more), " and %" PRIu64 " more", n.count - 1);
        return call_fail(c, n.error < 0 ? n.error : -EIO,
                         "unsent %s (%s)%s: write `retry` or `discard PATH` to ctl, or give the "
                         "exec unsent=ignore",
                         n.path, why ? why : "refused", more);
}

/* ---- discard ---- */

struct finding {
        struct vol_unsent_sink head; /* first */
        const char *said;
        size_t said_size;
        char *escaped; /* of SHOWN_MAX */
        char *found; /* owned */
        bool is_exact;
};

static bool is_said(const struct finding *f, const char *text)
{
        return strlen(text) == f->said_size && memcmp(text, f->said, f->said_size) == 0;
}

static void find_one(struct vol_unsent_sink *to, const char *path, int error, const char *sentence)
{
        struct finding *f = (struct finding *)(void *)to; /* its head */
        bool is_exact = is_said(f, shown(path));

        (void)error;
        (void)sentence;
        if (f->is_exact || (f->found && !is_exact))
                return;
        if (!is_exact) {
                escape_text(path, strlen(path), f->escaped, SHOWN_MAX);
                if (!is_said(f, f->escaped))
                        return;
        }
        free(f->found);
        f->found = strdup(path);
        f->is_exact = is_exact && f->found;
}

/* The path of an unsent change that is meant, to free; NULL: none is. */
static char *find(struct volume *v, const char *said, char *escaped)
{
        struct finding f = {.head = {find_one}, .said = said, .escaped = escaped};

        f.said_size = strlen(said);
        while (f.said_size > 1 && said[f.said_size - 1] == '/')
                f.said_size--;
        name_all(v, &f.head);
        return f.found;
}

int unsent_discard(struct volume *v, const char *said, bool only_check, struct call *c)
{
        _cleanup_(freep) char *escaped = malloc(SHOWN_MAX);
        _cleanup_(freep) char *path = NULL;
        int r = -ENOENT;

        if (!escaped)
                return -ENOMEM;
        path = find(v, said, escaped);
        if (!path && strncmp(said, "fs/", 3) == 0)
                path = find(v, said[3] ? said + 3 : ".", escaped);
        if (path && only_check)
                return 0;
        if (path)
                r = v->ops->discard(v, path);
        if (r == -ENOENT)
                return call_fail(c, r, "nothing is unsent at \"%.200s\"", said);
        return r < 0 ? call_fail_errno(c, r, "the journal") : 0;
}
