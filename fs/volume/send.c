/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's sender: one run of changes at a time, on a thread of the volume's own.
 *
 * Failures: no connection, no answer: what was not answered stays in front, and is tried again, ever
 *           less often, or when somebody waits. Refused for good: `failed` is told, and it is kept
 *           as unsent.
 */

#include "fs/volume/contents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/conflict.h"
#include "fs/volume/journal.h"
#include "fs/volume/refresh.h"
#include "fs/volume/temps.h"
#include "fs/volume/upload.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"
#include "transport/base/worker.h"

#define RUN_BYTES ((uint64_t)8 * 1024 * 1024) /* then it is answered, and who waits sees it move */

/* A run on its way. */
struct run {
        struct contents *s;
        struct call *call;
        struct waiting *all[SEND_RUN_MAX];
        size_t count;
        struct sending sent[SEND_RUN_MAX]; /* of those with content; x NULL: none was begun */
        struct stat attrs[SEND_RUN_MAX]; /* of those, what they are now */
        int results[SEND_RUN_MAX]; /* as journal_note_answers has them */
        const char *sentences[SEND_RUN_MAX];
        struct conflict_look *looks; /* owned; NULL: at none */
        char *conflicts; /* owned: CONFLICT_SENTENCE bytes for each; NULL: none was refused */
        size_t first[SEND_RUN_MAX], changes[SEND_RUN_MAX]; /* of each, in `change` */
        struct change *change; /* up to SENDING_CHANGES for each */
        size_t change_count;
        uint64_t bytes;
        struct meta_source source;
        bool is_filled;
};

/* ---- the journal's view of contents ---- */

static struct waiting **slot_of(struct content *x)
{
        return &x->head.waiting;
}

static bool is_only_here(const struct content *x)
{
        return atomic_load(&x->is_only_here);
}

static void moved(struct content *x, bool is_there)
{
        atomic_store(&x->has_no_base, true);
        atomic_store(&x->is_only_here, !is_there);
}

/* ---- what is sent ---- */

static void fill_name(const struct waiting *w, struct sending *sent, struct change *to)
{
        static struct file_source nothing; /* of size 0: never read */

        *to = (struct change){.kind = w->kind,
                              .path = w->path,
                              .to = w->to,
                              .temp = sending_temp(sent, w->number),
                              .flags = w->flags,
                              .what = w->what,
                              .mode = w->mode,
                              .atime = w->atime,
                              .mtime = w->mtime,
                              .from = w->kind == CHANGE_STORE ? &nothing : NULL};
}

/* As conflict_settle; what it refuses waits for people. */
static int settle_conflict(struct run *run, size_t i, struct content *x) REQUIRES(x->lock)
{
        char sentence[CONFLICT_SENTENCE];
        int r = run->looks ? conflict_settle(x, &run->looks[i], sentence) : 0;

        if (r >= 0)
                return r;
        if (!run->conflicts)
                run->conflicts = calloc(run->count, CONFLICT_SENTENCE);
        if (run->conflicts) {
                run->sentences[i] = run->conflicts + i * CONFLICT_SENTENCE;
                memcpy(run->conflicts + i * CONFLICT_SENTENCE, sentence, sizeof(sentence));
        }
        return r;
}

/*
 * 0: there is nothing to send; else how many changes, or -errno. A file that somebody has begun to
 * write anew waits for the end of that, unless all there is was asked for.
 */
static int fill_content(struct run *run, size_t i, struct change *to)
{
        const struct waiting *w = run->all[i];
        struct sending *sent = &run->sent[i];
        struct content *x = w->x;
        int r = 0;

        content_lock(x);
        while (r == 0 && x->held > 0)
                r = content_wait(x, run->call);
        if (r == 0 && x->kind != CONTENT_CLEAN && !x->is_removed &&
            (w->is_forced || x->kind != CONTENT_WHOLE || x->writers == 0 ||
             x->changes == w->changes)) {
                r = settle_conflict(run, i, x);
                if (r >= 0)
                        r = sending_begin(x, w->path, r > 0, sent);
                if (r == 0)
                        r = 1;
        }
        content_unlock(x);
        return r <= 0 ? r : sending_fill(sent, w->number, to);
}

/* Likewise; what a later rename needs to be there goes as it is now. */
static int fill_needed(struct run *run, size_t i, struct change *to)
{
        int r = fill_content(run, i, to);

        if (r == 0 && !journal_skip(run->s->journal, run->all[i]))
                r = fill_content(run, i, to);
        return r;
}

static void fill(struct run *run)
{
        for (size_t i = 0; i < run->count; i++) {
                struct waiting *w = run->all[i];
                struct change *to = run->change + run->change_count;
                int n = 1;

                if (run->bytes >= RUN_BYTES) {
                        journal_give_back(run->s->journal, run->all + i, run->count - i);
                        run->count = i;
                        break;
                }

                if (w->x)
                        n = fill_needed(run, i, to);
                else
                        fill_name(w, &run->sent[i], to);
                run->first[i] = run->change_count;
                run->changes[i] = n > 0 ? (size_t)n : 0;
                run->sent[i].error = n < 0 ? n : 0;
                run->sent[i].count = run->changes[i];
                run->change_count += run->changes[i];
                run->bytes += n > 0 && w->x ? run->sent[i].size : 0;
        }
}

/* Before its change leaves the queue: from then on only the record says where it is. */
static void note_skipped(const struct waiting *w)
{
        if (w->is_skipped && content_is_pinned(w->x) && content_note(w->x) < 0)
                log_warning("a record of what is being written was not renewed");
}

/* ---- what came of it ---- */

/* Not the sandbox's refusal: it is tried again. */
static bool is_passing(int error)
{
        switch (error) {
        case -EHOSTUNREACH:
        case -EHOSTDOWN:
        case -ETIMEDOUT:
        case -ECONNRESET:
        case -ECONNREFUSED:
        case -ENOTCONN:
        case -EPIPE:
        case -EPROTO:
        case -EINTR:
        case -EAGAIN:
        case -EINPROGRESS:
        case -ENOMEM: return true;
        default: return false;
        }
}

static bool is_link_to(struct box *box, struct call *call, const struct waiting *w)
{
        char text[META_TARGET_MAX + 1];

        return box_readlink(box, call, w->path, text, sizeof(text)) == 0 &&
               strcmp(text, w->to) == 0;
}

/* One that was made, by a run that ended before its mode was set, gets that. */
static bool is_directory(struct journal *j, struct box *box, struct call *call,
                         const struct waiting *w)
{
        struct change set = {
                .kind = CHANGE_SET, .path = w->path, .what = FILE_SET_MODE, .mode = w->mode};
        struct stat st;

        if (box_stat(box, call, w->path, &st) < 0 || !S_ISDIR(st.st_mode))
                return false;
        if (w->may_be_done && ((st.st_mode ^ w->mode) & 0777) != 0 && !journal_sets_later(j, w))
                (void)box_apply(box, call, &set, 1); /* it is there, at least */
        return true;
}

/* It was made by an earlier run, and removed or moved on by what came behind it in this one. */
static bool is_gone_again(struct journal *j, struct box *box, struct call *call,
                          const struct waiting *w)
{
        struct stat st;

        return w->may_be_done && journal_is_overtaken(j, w) &&
               box_stat(box, call, w->path, &st) == -ENOENT;
}

/* What it is for is so, though it says that it failed. */
static bool is_so_anyway(struct journal *j, struct box *box, struct call *call,
                         const struct waiting *w, int error)
{
        switch (w->kind) {
        case CHANGE_UNLINK:
        case CHANGE_RMDIR:
                return error == -ENOENT || (w->may_be_done && journal_is_made_later(j, w));
        case CHANGE_SET: return error == -ENOENT;
        case CHANGE_RENAME: return error == -ENOENT && w->may_be_done;
        case CHANGE_MKDIR:
                return error == -EEXIST &&
                       (is_directory(j, box, call, w) || is_gone_again(j, box, call, w));
        case CHANGE_SYMLINK:
                return error == -EEXIST &&
                       (is_link_to(box, call, w) || is_gone_again(j, box, call, w));
        case CHANGE_STORE:
        case CHANGE_WRITE:
        case CHANGE_LINK: break;
        }
        return false;
}

static void learn_name(const struct run *run, const struct waiting *w, const struct change *x)
{
        struct cached *c = run->s->c;

        if (!x->has_st || w->kind == CHANGE_RENAME || journal_is_overtaken(run->s->journal, w))
                return;
        meta_set(c->meta, w->path, &run->source, &x->st, false, clock_mono_ns());
}

static int answer_name(const struct run *run, const struct waiting *w, const struct change *x,
                       struct box *box)
{
        int error = x->error;

        if (error < 0 && box && is_so_anyway(run->s->journal, box, run->call, w, error))
                return 0;
        if (error == 0)
                learn_name(run, w, x);
        return is_passing(error) ? -EINPROGRESS : error;
}

/* No file may be made beside it, but perhaps it can be written itself. */
static bool may_go_in_place(const struct sending *sent, int error)
{
        struct content *x = sent->x;
        bool may;

        content_lock(x);
        may = (error == -EACCES || error == -EPERM) && !x->is_in_place &&
              !atomic_load(&x->is_only_here) && sent->is_whole;
        if (may)
                x->is_in_place = true;
        content_unlock(x);
        return may;
}

static int answer_content(struct run *run, size_t i)
{
        struct sending *sent = &run->sent[i];
        struct content *x = sent->x;
        const struct change *changes = run->change + run->first[i];

        if (!x)
                return is_passing(sent->error) ? -EINPROGRESS : sent->error;
        if (sent->error == 0)
                sent->error = sending_error(sent, changes);
        if (sent->error == 0)
                sending_answer(sent, changes, run->source.sent_ns, run->source.epoch,
                               &run->attrs[i]);
        else if (may_go_in_place(sent, sent->error))
                sent->error = -EINPROGRESS; /* it goes once more, in another way */
        return is_passing(sent->error) ? -EINPROGRESS : sent->error;
}

/* Its record goes, if all was sent. */
static void end_content(struct run *run, size_t i)
{
        struct sending *sent = &run->sent[i];
        struct content *x = sent->x;

        if (!x)
                return;
        content_ref(x);
        sending_end(sent, &run->attrs[i], !is_passing(sent->error));
        if (content_is_pinned(x) && content_note(x) < 0) /* under its path of now */
                log_warning("a record of what waits to be sent was not renewed");
        content_unref(x);
}

/* Its content is unsent, which the journal counts by now. */
static void count_refusal(const struct run *run, size_t i)
{
        struct content *x = run->all[i]->x;

        if (!x)
                return;
        content_lock(x);
        if (!run->sent[i].x) /* nothing was sent: a conflict */
                x->refused = run->results[i];
        (void)content_account(x); /* told when the run has ended */
        content_unlock(x);
}

/* After all of them: the answers to the first may be older than the changes after it. */
static void note_sent(const struct run *run)
{
        bool has_links = false;

        for (size_t i = 0; i < run->count; i++) {
                has_links |= run->all[i]->has_links;
                meta_sent(run->s->c->meta, run->all[i]->path, &run->source);
                if (run->all[i]->to && run->all[i]->kind == CHANGE_RENAME)
                        meta_sent(run->s->c->meta, run->all[i]->to, &run->source);
        }
        if (has_links)
                meta_links_sent(run->s->c->meta, clock_mono_ns());
}

static void tell_refusal(const struct run *run, const struct waiting *w, int error,
                         const char *sentence)
{
        struct cached *c = run->s->c;

        if (c->box.failed)
                c->box.failed(c->box.ctx, w->path, error, sentence);
        if (!w->x && !journal_is_overtaken(c->contents->journal, w))
                refused_show(c, &(struct journal_refused_name){.kind = w->kind,
                                                               .what = w->what,
                                                               .mode = w->mode,
                                                               .path = w->path,
                                                               .to = w->to});
}

/* A conflict that ours has won. */
static void tell_news(const struct run *run, size_t i)
{
        const struct cached *c = run->s->c;

        if (run->sent[i].news && c->box.noticed)
                c->box.noticed(c->box.ctx, run->all[i]->path, run->sent[i].news);
}

/* The call's sentence, if only one can be meant by it. */
static void find_sentences(struct run *run, int call_error)
{
        size_t refused = 0, last = 0;

        for (size_t i = 0; i < run->count; i++) {
                if (run->results[i] >= 0 || run->results[i] == -EINPROGRESS || run->sentences[i])
                        continue;
                refused++;
                last = i;
        }
        if (refused == 1 && call_error == 0)
                run->sentences[last] = run->call->sentence;
}

static void answer(struct run *run, struct box *box, int call_error)
{
        int *results = run->results;

        /* How many names a file has may be older than what else is here. */
        if (journal_has_links(run->s->journal))
                for (size_t i = 0; i < run->change_count; i++)
                        run->change[i].st.st_nlink = 0;
        for (size_t i = 0; i < run->count; i++) {
                struct waiting *w = run->all[i];

                results[i] = -EINPROGRESS;
                note_skipped(w);
                if (run->is_filled)
                        results[i] = w->x ? answer_content(run, i)
                                          : answer_name(run, w, &run->change[run->first[i]], box);
        }
        find_sentences(run, call_error);
        note_sent(run);
        /* First the journal knows: what is sent again must not come from before what isn't. */
        journal_note_answers(run->s->journal, run->all, results, run->count, run->sentences);
        for (size_t i = 0; i < run->count; i++) {
                if (results[i] == -EINPROGRESS && run->changes[i] > 0)
                        temps_note(run->s->temps, run->all[i]);
                end_content(run, i);
        }
        for (size_t i = 0; i < run->count; i++) {
                bool is_refused = results[i] < 0 && results[i] != -EINPROGRESS;

                if (is_refused) {
                        count_refusal(run, i);
                        tell_refusal(run, run->all[i], results[i],
                                     run->sentences[i] ? run->sentences[i] : "");
                }
                tell_news(run, i);
                journal_answered(run->s->journal, run->all[i], results[i]);
        }
}

/* ---- a run ---- */

static int send_run(struct run *run)
{
        struct contents *s = run->s;
        struct box *box = NULL;
        int r = s->c->box.enter(s->c->box.ctx, run->call, &box);

        if (r == 0)
                r = temps_remove(s->temps, box, run->call);
        if (r == 0)
                r = conflict_look(s, box, run->call, run->all, run->count, &run->looks);
        refresh_source(s->c, &run->source);
        if (r == 0)
                fill(run);
        run->is_filled = r == 0;
        for (size_t i = 0; i < run->change_count; i++)
                run->change[i].error = -EINPROGRESS;
        if (r == 0 && run->change_count > 0)
                r = box_apply(box, run->call, run->change, run->change_count);
        answer(run, r < 0 ? NULL : box, r);
        if (box)
                cached_leave(s->c, box);
        return r;
}

static void send_once(struct contents *s, struct call *call)
{
        struct run *run = calloc(1, sizeof(*run));
        int r = -ENOMEM;

        if (run) {
                run->s = s;
                run->call = call;
                run->change = calloc((size_t)SEND_RUN_MAX * SENDING_CHANGES, sizeof(*run->change));
        }
        if (run && run->change) {
                run->count = journal_take(s->journal, SEND_RUN_MAX, run->all);
                r = run->count > 0 ? send_run(run) : 0;
        }
        journal_run_done(s->journal, r);
        if (run) {
                free(run->change);
                free(run->looks);
                free(run->conflicts);
        }
        free(run);
        contents_tell(s);
}

static void submit(struct contents *s, uint64_t due_ns);

static void run_sender(void *arg)
{
        struct contents *s = arg;
        struct content_call cc;
        uint64_t due_ns = 1;

        mutex_lock(&s->lock);
        s->is_send_due = false;
        s->is_sending = true;
        mutex_unlock(&s->lock);
        while (due_ns != 0 && due_ns <= clock_mono_ns() && !atomic_load(&s->is_ending)) {
                contents_begin_call(s, &cc);
                send_once(s, &cc.call);
                contents_end_call(s, &cc);
                due_ns = journal_due_ns(s->journal);
        }
        mutex_lock(&s->lock);
        s->is_sending = false;
        mutex_unlock(&s->lock);
        due_ns = journal_due_ns(s->journal); /* what came before that was for us */
        if (due_ns != 0)
                submit(s, due_ns);
}

/* See that it runs at that time; earlier than it was going to if need be. */
static void submit(struct contents *s, uint64_t due_ns)
{
        bool is_now = due_ns <= clock_mono_ns();
        int r = 0;

        mutex_lock(&s->lock);
        if (!s->is_sending && s->is_send_due && is_now && s->send_id != 0 &&
            workers_cancel(s->workers, s->send_id))
                s->is_send_due = false;
        if (!s->is_sending && !s->is_send_due && !atomic_load(&s->is_ending)) {
                s->send_id = 0;
                r = is_now ? workers_submit(s->workers, WORKER_SLOW, run_sender, s)
                           : workers_submit_at(s->workers, WORKER_SLOW, due_ns, run_sender, s,
                                               &s->send_id);
                s->is_send_due = r == 0;
        }
        mutex_unlock(&s->lock);
        if (r < 0)
                log_warning("sending changes waits: %s", errno_name(r));
}

static void on_news(void *arg, bool at_once)
{
        struct contents *s = arg;
        uint64_t due_ns = at_once ? 1 : journal_due_ns(s->journal);

        if (due_ns != 0)
                submit(s, due_ns);
        contents_tell(s); /* a command that begins now waits for it */
}

int send_new(struct contents *s)
{
        static const struct journal_hooks hooks = {content_ref, content_unref, slot_of,
                                                   is_only_here, moved};
        int r = journal_new(s->dir, &hooks, &s->journal);

        if (r == 0)
                journal_on_news(s->journal, on_news, s);
        return r;
}

/* ---- contents ---- */

static int queue_ordered(struct content *x, bool is_forced)
{
        struct contents *s = x->s;
        _cleanup_(freep) char *path = NULL;
        struct journal_change change = {.kind = CHANGE_STORE, .x = x, .is_forced = is_forced};
        bool is_nothing;
        int r;

        content_lock(x);
        is_nothing = x->kind == CONTENT_CLEAN || x->is_removed;
        change.has_links = x->is_in_place;
        change.record = x->record;
        change.changes = x->changes;
        change.is_refused = x->refused != 0;
        content_unlock(x);
        if (is_nothing || journal_has(s->journal, &change))
                return 0;
        r = cached_content_path(s->c, x, &path);
        if (r < 0)
                return r == -ENOENT ? 0 : r; /* removed in between */
        change.path = path;
        r = journal_add(s->journal, &change);
        if (r == 0 && !change.is_refused && content_is_refused(x)) /* since then */
                journal_count_again(s->journal, x);
        return r;
}

static int queue(struct content *x, bool is_forced)
{
        struct cached *c = x->s->c;
        int r;

        mutex_lock(&c->order);
        r = queue_ordered(x, is_forced);
        mutex_unlock(&c->order);
        return r;
}

int content_queue(struct content *x)
{
        return queue(x, false);
}

static int refusal(struct content *x)
{
        int r;

        content_lock(x);
        r = x->kind != CONTENT_CLEAN && !x->is_removed ? x->refused : 0;
        content_unlock(x);
        return r;
}

int content_upload(struct content *x, struct call *call)
{
        int r = queue(x, true);

        if (r == 0)
                r = journal_settle(x->s->journal, call, NULL);
        return r == 0 ? refusal(x) : r;
}

int contents_find_pinned(struct contents *s, struct content ***ret, size_t *ret_count)
{
        struct content **found;
        size_t count = 0;

        mutex_lock(&s->lock);
        found = calloc(s->count ? s->count : 1, sizeof(struct content *));
        if (found)
                list_for_each (l, &s->all) {
                        struct content *x = list_entry(l, struct content, of_all);

                        if (content_is_pinned(x))
                                found[count++] = content_ref(x);
                }
        mutex_unlock(&s->lock);
        if (!found)
                return -ENOMEM;
        *ret = found;
        *ret_count = count;
        return 0;
}

/* Not those that were refused: they wait for retry, or for the next write. */
int contents_queue_all(struct contents *s)
{
        struct content **xs = NULL;
        size_t count = 0;
        int r = contents_find_pinned(s, &xs, &count), e;

        for (size_t i = 0; i < count; i++) {
                e = r == 0 && refusal(xs[i]) == 0 ? queue(xs[i], true) : 0;
                if (e < 0)
                        r = e;
                content_unref(xs[i]);
        }
        free(xs);
        return r;
}

int contents_sync(struct cached *c, struct vol_op *op)
{
        int r = contents_queue_all(c->contents);

        return r == 0 ? journal_settle(c->contents->journal, op->call, NULL) : r;
}
