/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes made, by the helper shell and in one round trip for all of them: touch adds the
 * nanoseconds to times that SFTP has set, and find tells what each file is now.
 *
 * Somebody there may have written to a file since it was renamed into place: its mtime is touched
 * only while it is the second that SFTP set, exactly; else that write would look like ours. And
 * attributes that aren't those of what we wrote are not told as its.
 *
 * A file is looked for where later changes of the same run have brought it. The script is in the
 * working directory; paths begin with "./".
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/ssh/files.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/path.h"

#define SCRIPT_MAX ((size_t)4 << 20)
#define BATCH_TOUCHES 64 /* of one find: they are looked at before the first of them is touched */
#define BATCH_FILES 4096 /* of one find */
#define BATCH_BYTES ((size_t)64 * 1024)
#define AFTER_NS (10 * NS_PER_S) /* without a byte: what was done is done, people wait */

#define TIMES (FILE_SET_ATIME | FILE_SET_MTIME)

/* A change and the file that it left behind. */
struct trace {
        struct change *x;
        char *path; /* below the working directory */
};

/* A file, with what its changes together ask for. */
struct target {
        const char *path;
        struct timespec mtime, atime;
        bool has_mtime, has_exact_mtime; /* by SFTP's attributes, or ours */
        bool touches_mtime, touches_atime;
        bool is_unset; /* SFTP didn't set its mtime */
        bool has_size;
        off_t size;
        bool is_found;
        struct stat st;
};

struct after {
        struct shell_sink sink;
        struct find_parser parser;
        struct spot *spot;
        struct change *changes;
        const unsigned char *marks; /* of enum after_mark */
        size_t count;
        struct trace *traces; /* by path, then in their order */
        size_t trace_count;
        struct target *targets; /* by path */
        size_t target_count;
        size_t told; /* targets before this one had their chance */
};

bool is_set_by_touch(const struct spot *s, const struct change *x)
{
        return s->has_touch && x->kind == CHANGE_SET && (x->what & TIMES) == FILE_SET_ATIME;
}

bool follows_links(const struct spot *s)
{
        return (sftp_features(s->sftp) & SFTP_CAN_LSETSTAT) == 0;
}

/* ---- where files are now ---- */

/* Of a run, in their order: those that moved, linked or removed something. */
struct mover_list {
        const struct change *changes;
        size_t *list; /* indexes */
        size_t count;
};

/* What one change does to the file at *path: moves it, or removes that name (*path is NULL then). */
static int follow_one(const struct change *x, char **path)
{
        const char *rest = path_rest(*path, x->path);
        bool is_gone = false;
        char *moved = NULL;

        switch (x->kind) {
        case CHANGE_RENAME:
                if (rest && asprintf(&moved, "%s%s", x->to, rest) < 0)
                        return -ENOMEM;
                is_gone = !rest && strcmp(*path, x->to) == 0;
                break;
        case CHANGE_UNLINK:
        case CHANGE_RMDIR: is_gone = rest && !rest[0]; break;
        case CHANGE_STORE:
        case CHANGE_WRITE:
        case CHANGE_MKDIR:
        case CHANGE_SYMLINK:
        case CHANGE_LINK:
        case CHANGE_SET: break;
        }
        if (moved || is_gone) {
                free(*path);
                *path = moved;
        }
        return 0;
}

/*
 * Where the file is after those of `movers` from `from` on that is at `path` before; NULL: no more.
 * Movers are all that give a file another name, or take one: but for CHANGE_STORE, see drop_replaced.
 */
static int follow(const struct mover_list *m, size_t from, const char *path, char **ret)
{
        char *at = strdup(path);
        size_t linked = m->count;
        int r = at ? 0 : -ENOMEM;

        for (size_t i = from; r == 0 && at && i < m->count; i++) {
                const struct change *x = &m->changes[m->list[i]];

                if (x->kind == CHANGE_LINK && strcmp(x->path, at) == 0)
                        linked = i;
                r = follow_one(x, &at);
        }
        if (r == 0 && !at && linked < m->count)
                return follow(m, linked + 1, m->changes[m->list[linked]].to, ret);
        *ret = at;
        return r;
}

static const char *path_made(const struct change *x)
{
        if (x->error != 0 || x->kind == CHANGE_UNLINK || x->kind == CHANGE_RMDIR)
                return NULL;
        return x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK ? x->to : x->path;
}

static int by_path(const void *a, const void *b)
{
        const struct trace *ta = a, *tb = b;
        int order = strcmp(ta->path, tb->path);

        return order != 0 ? order : (ta->x > tb->x) - (ta->x < tb->x);
}

static bool is_mover(const struct change *x)
{
        return x->error == 0 && (x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK ||
                                 x->kind == CHANGE_UNLINK || x->kind == CHANGE_RMDIR);
}

/* Of those that end at one path: what came before the last CHANGE_STORE is of a file that is gone. */
static void drop_replaced(struct after *a)
{
        size_t kept = 0, first = 0; /* of that path, among the kept */

        for (size_t i = 0; i < a->trace_count; i++) {
                struct trace at = a->traces[i];

                if (kept == 0 || strcmp(a->traces[kept - 1].path, at.path) != 0)
                        first = kept;
                while (at.x->kind == CHANGE_STORE && kept > first)
                        free(a->traces[--kept].path);
                a->traces[kept++] = at;
        }
        a->trace_count = kept;
}

static int trace_each(struct after *a, struct mover_list *m)
{
        size_t next = 0; /* mover behind the change */
        int r = 0;

        for (size_t i = 0; r == 0 && i < a->count; i++) {
                struct change *x = &a->changes[i];
                const char *made = path_made(x);
                char *path = NULL;

                next += is_mover(x);
                if (made)
                        r = follow(m, next, made, &path);
                if (path)
                        a->traces[a->trace_count++] = (struct trace){x, path};
        }
        return r;
}

static int trace_all(struct after *a)
{
        struct mover_list m = {.changes = a->changes,
                               .list = calloc(a->count + 1, sizeof(*m.list))};
        int r;

        a->traces = calloc(a->count + 1, sizeof(*a->traces));
        a->targets = calloc(a->count + 1, sizeof(*a->targets));
        for (size_t i = 0; m.list && i < a->count; i++) {
                if (is_mover(&a->changes[i]))
                        m.list[m.count++] = i;
        }
        r = m.list && a->traces && a->targets ? trace_each(a, &m) : -ENOMEM;
        free(m.list);
        if (a->trace_count > 0)
                qsort(a->traces, a->trace_count, sizeof(*a->traces), by_path);
        drop_replaced(a);
        return r;
}

/* ---- what is to be done ---- */

static bool is_link_to_touch(const struct spot *s, const struct change *x)
{
        return x->kind == CHANGE_SET && (x->what & TIMES) != 0 && S_ISLNK(x->st.st_mode) &&
               follows_links(s);
}

/* What SFTP told, and did, isn't all: a directory or a link that is new has no time of ours. */
static bool is_unfinished(const struct spot *s, const struct change *x, unsigned mark)
{
        bool adds_ns = ((x->what & FILE_SET_MTIME) != 0 && x->mtime.tv_nsec != 0) ||
                       ((x->what & FILE_SET_ATIME) != 0 && x->atime.tv_nsec != 0);

        if (!path_made(x) || (mark & AFTER_IS_TOLD))
                return false;
        if (s->has_find && (!x->has_st || (mark & AFTER_HAS_NS)))
                return true;
        return (s->has_touch && adds_ns) || is_link_to_touch(s, x);
}

static void ask_for(struct target *t, const struct spot *s, const struct change *x, unsigned mark)
{
        bool is_link = is_link_to_touch(s, x);
        bool has_mtime = (x->what & FILE_SET_MTIME) != 0, has_atime = x->what & FILE_SET_ATIME;
        bool has_content = x->kind == CHANGE_STORE || x->kind == CHANGE_WRITE ||
                           (x->kind == CHANGE_SET && (x->what & FILE_SET_SIZE));

        if (has_content) {
                t->has_size = x->st.st_mode != 0;
                t->size = x->st.st_size;
        }
        if (has_mtime || has_content) {
                t->mtime = has_mtime ? x->mtime : x->st.st_mtim;
                t->has_mtime = has_mtime || x->st.st_mode != 0;
                t->has_exact_mtime = has_mtime;
                t->touches_mtime = has_mtime && !(mark & AFTER_HAS_NS) &&
                                   (is_link || (s->has_touch && x->mtime.tv_nsec));
                t->is_unset = is_link;
        }
        if (has_atime) {
                t->atime = x->atime;
                t->touches_atime =
                        is_link || is_set_by_touch(s, x) || (s->has_touch && x->atime.tv_nsec != 0);
        }
}

static void find_targets(struct after *a)
{
        for (size_t i = 0; i < a->trace_count; i++) {
                const struct trace *at = &a->traces[i];

                if (i == 0 || strcmp(at->path, at[-1].path) != 0)
                        a->targets[a->target_count++].path = at->path;
                ask_for(&a->targets[a->target_count - 1], a->spot, at->x,
                        a->marks[at->x - a->changes]);
        }
}

/* ---- the script ---- */

/*
 * b PATH...: w has a word for each, "-" or what its mtime is, the new mtime and the new atime, each
 * "-" for none. Its own words: is, what find says of all mtimes; v, s, m, a, of one file.
 */
static const char script_head[] =
        "c() { k=$#; }\n"
        "b() {\n"
        "if [ \"$w\" ]; then\n"
        "is=$(find \"$@\" -maxdepth 0 -printf '%%T@ ')\n"
        "c $is\n"
        "[ $k -eq $# ] || is=\n"
        "k=0\n"
        "for p do\n"
        "v=${w%%%% *}; w=${w#* }; s=${is%%%% *}; is=${is#* }\n"
        "[ \"$v\" != - ] || continue\n"
        "[ \"$s\" ] || s=$(find \"$p\" -maxdepth 0 -printf %%T@)\n"
        "a=${v##*,}; v=${v%%,*}; m=${v#*,}; v=${v%%%%,*}\n"
        "case $s in \"$v\".*[1-9]*) m=-;; \"$v\".*) ;; *) [ \"$v\" = - ] || m=-;; esac\n"
        "[ \"$m\" = - ] || { touch -chm -d \"@$m\" -- \"$p\" & }\n"
        "[ \"$a\" = - ] || { touch -cha -d \"@$a\" -- \"$p\" & }\n"
        "k=$((k + 1)); [ $k -lt 8 ] || { wait; k=0; }\n"
        "done\n"
        "wait\n"
        "fi\n"
        "find \"$@\" -maxdepth 0 %s\n"
        "} 2>/dev/null\n";

static int add_time(struct buf *to, const struct timespec *t, bool has_ns)
{
        long long seconds = t->tv_sec;
        bool is_negative = seconds < 0 && t->tv_nsec > 0; /* -1 and a half: -0.5 */

        if (!has_ns)
                return buf_addf(to, "%lld", seconds);
        return buf_addf(to, "%s%lld.%09ld", is_negative ? "-" : "",
                        is_negative ? -(seconds + 1) : seconds,
                        is_negative ? 1000000000 - t->tv_nsec : t->tv_nsec);
}

static int add_path(struct buf *to, const char *path)
{
        char *dotted;
        int r;

        if (!path[0])
                return buf_add_str(to, ".");
        if (asprintf(&dotted, "./%s", path) < 0)
                return -ENOMEM;
        r = quote_add(to, dotted);
        free(dotted);
        return r;
}

static int add_word(struct buf *to, const struct target *t, bool has_ns)
{
        bool is_checked = t->touches_mtime && !t->is_unset;
        int r;

        if (!t->touches_mtime && !t->touches_atime)
                return buf_add_str(to, "- ");
        r = is_checked ? buf_addf(to, "%lld,", (long long)t->mtime.tv_sec) : buf_add_str(to, "-,");
        if (r == 0)
                r = t->touches_mtime ? add_time(to, &t->mtime, has_ns) : buf_add_char(to, '-');
        if (r == 0)
                r = buf_add_char(to, ',');
        if (r == 0)
                r = t->touches_atime ? add_time(to, &t->atime, has_ns) : buf_add_char(to, '-');
        return r == 0 ? buf_add_char(to, ' ') : r;
}

/* The next files, from `*at` on, with one find. */
static int add_batch(struct buf *to, const struct after *a, size_t *at)
{
        size_t end = *at, bytes = 0, touches = 0;
        int r = buf_add_str(to, "w='");

        for (; end < a->target_count && end < *at + BATCH_FILES && bytes < BATCH_BYTES; end++) {
                touches += a->targets[end].touches_mtime || a->targets[end].touches_atime;
                if (touches > 0 && end >= *at + BATCH_TOUCHES)
                        break;
                bytes += strlen(a->targets[end].path) + 3;
        }
        for (size_t i = *at; touches > 0 && r == 0 && i < end; i++)
                r = add_word(to, &a->targets[i], a->spot->has_touch);
        if (r == 0)
                r = buf_add_str(to, "'\nb");
        for (; r == 0 && *at < end; ++*at) {
                r = buf_add_char(to, ' ');
                if (r == 0)
                        r = add_path(to, a->targets[*at].path);
        }
        return r == 0 ? buf_add_char(to, '\n') : r;
}

/* Where there is no such find: links, which SFTP would follow. A touch that can't is no harm. */
static int add_touch(struct buf *to, const struct after *a, const struct target *t)
{
        bool has_ns = a->spot->has_touch;
        int r = 0;

        for (unsigned i = 0; r == 0 && i < 2; i++) {
                if (i == 0 ? !t->touches_mtime : !t->touches_atime)
                        continue;
                r = buf_addf(to, "touch -ch%c -d @", i == 0 ? 'm' : 'a');
                if (r == 0)
                        r = add_time(to, i == 0 ? &t->mtime : &t->atime, has_ns);
                if (r == 0)
                        r = buf_add_str(to, " -- ");
                if (r == 0)
                        r = add_path(to, t->path);
                if (r == 0)
                        r = buf_add_str(to, " 2>/dev/null\n");
        }
        return r;
}

static int add_script(struct buf *to, const struct after *a)
{
        bool has_find = a->spot->has_find;
        int r = quote_addf(to, "cd %s || exit\n", a->spot->paths->work);

        if (r == 0 && has_find)
                r = buf_addf(to, script_head, find_print_given);
        for (size_t i = 0; r == 0 && has_find && i < a->target_count;)
                r = add_batch(to, a, &i);
        for (size_t i = 0; r == 0 && !has_find && i < a->target_count; i++)
                r = add_touch(to, a, &a->targets[i]);
        return r;
}

/* ---- the answer ---- */

/* In the order of our paths, without those that aren't there. */
static int on_found(void *ctx, const struct found *f)
{
        struct after *a = ctx;

        while (a->told < a->target_count) {
                struct target *t = &a->targets[a->told++];
                bool is_root = !t->path[0] && strcmp(f->path, ".") == 0;

                if (!is_root &&
                    (strncmp(f->path, "./", 2) != 0 || strcmp(f->path + 2, t->path) != 0))
                        continue;
                t->st = f->st;
                t->is_found = true;
                return 0;
        }
        return -EPROTO;
}

static int on_data(struct shell_sink *to, const void *data, size_t size)
{
        return find_parse(&container_of(to, struct after, sink)->parser, data, size);
}

/* Some file systems have only milliseconds, or seconds. */
static bool is_same_ns(long there, long ours)
{
        return there == 0 || (there <= ours && ours - there < 1000000);
}

/* Nobody else has written to it since. */
static bool is_ours(const struct target *t)
{
        if (t->has_size && t->st.st_size != t->size)
                return false;
        return !t->has_mtime ||
               (t->st.st_mtim.tv_sec == t->mtime.tv_sec &&
                (!t->has_exact_mtime || is_same_ns(t->st.st_mtim.tv_nsec, t->mtime.tv_nsec)));
}

bool is_as_stored(const struct change *x, const struct stat *st)
{
        const struct target t = {.mtime = x->mtime,
                                 .has_mtime = true,
                                 .has_exact_mtime = true,
                                 .has_size = true,
                                 .size = (off_t)x->from->size,
                                 .st = *st};

        return S_ISREG(st->st_mode) && is_ours(&t);
}

static void tell(struct after *a)
{
        const struct target *t = a->targets;

        for (size_t i = 0; i < a->trace_count; i++) {
                struct change *x = a->traces[i].x;

                t += i > 0 && strcmp(a->traces[i].path, a->traces[i - 1].path) != 0;
                x->has_st = t->is_found && is_ours(t);
                if (x->has_st)
                        x->st = t->st;
        }
}

static int run(struct after *a, struct call *c)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(SCRIPT_MAX);
        uint64_t deadline_ns = c->deadline_ns, own_ns = clock_after(AFTER_NS);
        int code, r = add_script(&script, a);

        if (r < 0)
                return r;
        if (own_ns < deadline_ns)
                c->deadline_ns = own_ns;
        r = shell_run(a->spot->box->host->shell, c, buf_str(&script), &a->sink, &code);
        if (c->deadline_ns < deadline_ns)
                c->deadline_ns = deadline_ns;
        return r;
}

static void after_done(struct after *a)
{
        for (size_t i = 0; i < a->trace_count; i++)
                free(a->traces[i].path);
        free(a->traces);
        free(a->targets);
        buf_done(&a->parser.pending);
}

void after_changes(struct spot *s, struct call *c, struct change *changes,
                   const unsigned char *marks, size_t count)
{
        struct after a = {.sink.data = on_data,
                          .parser = {.pending = BUF_INIT(FIND_PENDING_MAX),
                                     .is_given = true,
                                     .entry = on_found,
                                     .ctx = &a},
                          .spot = s,
                          .changes = changes,
                          .marks = marks,
                          .count = count};
        char sentence[CALL_SENTENCE_MAX];
        bool is_needed = false;

        for (size_t i = 0; s->has_shell && i < count; i++)
                is_needed |= is_unfinished(s, &changes[i], marks[i]);
        if (!is_needed)
                return;
        memcpy(sentence, c->sentence, sizeof(sentence));
        if (trace_all(&a) == 0) {
                find_targets(&a);
                if (run(&a, c) == 0 && s->has_find)
                        tell(&a);
        }
        memcpy(c->sentence, sentence,
               sizeof(sentence)); /* what fails here is no failure of theirs */
        after_done(&a);
}
