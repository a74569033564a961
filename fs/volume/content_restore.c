/* SPDX-License-Identifier: Apache-2.0 */
/* What an earlier run left to be sent, as contents of the files that it is for. */

#include "fs/volume/contents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/journal.h"
#include "fs/volume/temps.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"

/* Bytes of an earlier run, as a content of the file that they are for. */
static int restore(struct contents *s, struct dirty_found *f)
{
        struct known k = {.epoch = 0};
        _cleanup_(freep) char *path = journal_find_path(s->journal, f->id, f->path, f->record.seq);
        struct content *x;
        int r;

        if (!path)
                return -ENOMEM;
        k.st = f->record.base;
        k.st.st_size = (off_t)f->record.version_size;
        k.st.st_mode = S_IFREG | f->record.mode;
        k.st.st_nlink = 1;
        x = content_new(s, &k);
        if (!x)
                return -ENOMEM;
        content_lock(x);
        x->kind = f->record.is_whole ? CONTENT_WHOLE : CONTENT_PARTS;
        x->record = f->id;
        x->is_only_here = false; /* it may have been sent since its record was written */
        x->has_no_base = strcmp(path, f->path) != 0; /* renamed right before the end */
        x->sets_mode = f->record.sets_mode;
        x->shown.st_mtim = x->shown.st_atim = x->shown.st_ctim = f->record.mtime;
        x->has_own_mtime = true;
        x->changes = 1;
        x->parts = f->parts;
        f->parts = (struct dirty_parts){0};
        blob_adopt(&s->spool, x->blob, f->id);
        r = blob_resize(&s->spool, x->blob, x->parts.size);
        if (r == 0)
                r = x->kind == CONTENT_WHOLE ? extents_add(&x->present, 0, x->parts.size)
                                             : extents_add_all(&x->present, &x->parts.dirty);
        if (r == 0 && x->parts.size > x->parts.base_size)
                r = extents_add(&x->present, x->parts.base_size, x->parts.size);
        blob_count(&s->spool, x->blob, extents_bytes(&x->present));
        (void)content_account(x); /* nobody looks yet */
        content_unlock(x);
        if (r == 0)
                r = cached_restore(s->c, path, &k.st, x);
        content_unref(x); /* its entry has one */
        return r;
}

struct finding {
        struct journal_restore head; /* first */
        struct contents *s;
};

/* Nobody else knows them yet. */
static struct content *find_record(struct journal_restore *to, uint64_t record, int refused,
                                   uint64_t *ret_changes) NO_THREAD_SAFETY_ANALYSIS
{
        struct contents *s = ((struct finding *)(void *)to)->s; /* its head */

        list_for_each (l, &s->all) {
                struct content *x = list_entry(l, struct content, of_all);

                if (x->record != record)
                        continue;
                x->refused = refused;
                (void)content_account(x); /* nor looks */
                *ret_changes = x->changes;
                return content_ref(x);
        }
        return NULL;
}

static void note_temps(void *arg, const struct waiting *w)
{
        temps_note(arg, w);
}

int contents_restore(struct contents *s)
{
        struct dirty_found *found = NULL;
        uint64_t max = 0, named = 0;
        size_t count = 0;
        int r = journal_load(s->journal, &named);

        if (r == 0)
                r = dirty_find(s->dir, &found, &count, &max);
        if (r == 0)
                journal_each_unsure(s->journal, SEND_RUN_MAX, note_temps, s->temps);
        atomic_store(&s->spool.next_id, (max > named ? max : named) + 1);
        for (size_t i = 0; i < count; i++) {
                int e = restore(s, &found[i]);

                if (e == -EEXIST) /* a later one is of the same file, which was emptied then */
                        dirty_remove(s->dir, found[i].id);
                else if (e < 0)
                        log_error("what waits to be sent to a file was not restored: %s",
                                  errno_name(e));
                dirty_found_done(&found[i]);
        }
        free(found);
        if (r == 0) {
                journal_attach(s->journal, &(struct finding){{find_record}, s}.head);
                r = refused_show_all(s->c);
        }
        if (r == 0)
                r = contents_queue_all(s); /* those that no change is queued for */
        return r;
}

bool volume_cached_has_dirty(int dir)
{
        return dirty_any(dir) || journal_any(dir);
}
