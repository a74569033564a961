/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a sandbox.
 *
 *      accepted       the name is free, the record says so
 *      under way      its commands end, the provider destroys it; what fails is tried again later,
 *                     and after some tries it comes back as NAME.1, in state error
 *      proven gone    all files go
 *
 * A record of a destruction that was not carried out is tried again at the next start.
 */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "transport/base/file.h"
#include "transport/base/log.h"

static const char *const cancelled = "the sandbox is being destroyed";

void destroy_accept(struct sandbox *sb, struct results *results, uint64_t seq)
{
        struct job *j = job_new(JOB_DESTROY, results, seq);
        bool is_again;

        if (!j) {
                if (results)
                        results_end(results, seq, -ENOMEM, NULL);
                return;
        }
        mutex_lock(&sb->lock);
        is_again = sb->is_dead || (sb->is_destroying && sb->state != BOX_ERROR && sb->is_begun);
        if (!is_again) {
                sb->is_destroying = true;
                sb->is_begun = true;
                sb->retries = 0;
                if (sb->base_name[0] == '\0')
                        memcpy(sb->base_name, sb->name, sizeof(sb->base_name));
                sandbox_set_state_locked(sb, BOX_DESTROYING);
                if (sb->call)
                        call_cancel(sb->call);
                sandbox_enqueue_locked(sb, j, true);
        }
        mutex_unlock(&sb->lock);
        if (is_again) {
                job_end(j, 0, NULL); /* it is on its way */
                return;
        }
        (void)fleet_hide(sb->fleet, sb);
        sandbox_drop_jobs(sb, -ENODEV, cancelled);
        if (sandbox_save(sb, false) < 0)
                log_warning("%s: the record doesn't say yet that it is to be destroyed, ignoring",
                            sb->path);
        sandbox_kick(sb);
        news_post(sb->fleet);
}

int destroy_run(struct sandbox *sb, struct call *c)
{
        struct box *box;
        bool may_exist, is_ours;
        int r;

        sandbox_end_tasks(sb, &(struct exec_end){.kind = EXEC_END_ERROR,
                                                 .sentence = "the sandbox was destroyed"});
        mutex_lock(&sb->lock);
        box = sb->box;
        is_ours = sb->was_create_tried; /* else an adoption that failed: not ours to destroy */
        may_exist = box || is_ours || sb->box_id[0] != '\0';
        mutex_unlock(&sb->lock);
        if (!may_exist)
                return 0;
        if (!sb->section || !sb->section->provider)
                return call_fail(c, -EHOSTUNREACH, "provider %s is not there", sb->provider);
        if (!box) {
                /* Not every service's list has our key, nor what was adopted. */
                r = is_ours ? sandbox_reattach(sb, c, &box) : sandbox_find_made(sb, c, &box);
                if (r == -ENOENT || r == -ENODEV)
                        return 0;
                if (r < 0)
                        return r;
                mutex_lock(&sb->lock);
                sb->box = box;
                mutex_unlock(&sb->lock);
        }
        r = box_destroy(box, c);
        return r == -ENODEV ? 0 : r;
}

static void come_back(struct sandbox *sb, int code, const char *sentence)
{
        char name[NAME_SIZE], text[1100];

        mutex_lock(&sb->lock);
        memcpy(name, sb->base_name, sizeof(name));
        sandbox_set_state_locked(sb, BOX_ERROR);
        (void)snprintf(text, sizeof(text), "could not be destroyed: %s", sentence);
        sandbox_say_error_locked(sb, code, text);
        mutex_unlock(&sb->lock);
        if (fleet_give_name(sb->fleet, sb, name) < 0)
                log_error("%s: no name is left for it", sb->path);
        (void)sandbox_save(sb, false); /* the record says the same already: it is to be destroyed */
}

bool destroy_again(struct sandbox *sb, struct job *j, int code, const char *sentence)
{
        const struct fleet_seams *seams = &sb->fleet->seams;
        uint64_t due = NOTHING_DUE;

        mutex_lock(&sb->lock);
        if (++sb->retries < seams->destroy_tries && !atomic_load(&sb->fleet->is_closing)) {
                assert(!sb->retry_job);
                sb->retry_job = j;
                due = clock_after(seams->destroy_retry_ns << (sb->retries - 1));
                sb->retry_due_ns = due;
                (void)snprintf(sb->phase, sizeof(sb->phase), "try %u failed", sb->retries);
                sandbox_say_error_locked(sb, code, sentence);
        }
        mutex_unlock(&sb->lock);
        log_warning("destroy %s: %s: %s", sb->key, errno_name(code), sentence);
        if (due == NOTHING_DUE) {
                come_back(sb, code, sentence);
                return false;
        }
        fleet_due(sb->fleet, due);
        return true;
}

void sandbox_tell_gone(struct sandbox *sb)
{
        const struct listener *l = &sb->fleet->listener;
        bool tell;

        mutex_lock(&sb->lock);
        tell = sb->state == BOX_GONE && !sb->was_told_gone;
        sb->was_told_gone |= tell;
        mutex_unlock(&sb->lock);
        if (tell && l->sandbox_gone)
                l->sandbox_gone(l->ctx, sb);
}

void sandbox_gone(struct sandbox *sb)
{
        int r;

        mutex_lock(&sb->lock);
        sb->is_dead = true;
        sandbox_set_state_locked(sb, BOX_GONE);
        mutex_unlock(&sb->lock);

        mutex_lock(&sb->save_lock); /* a record that is being written would come back */
        r = file_remove_tree(sb->fleet->state_dir, sb->path);
        mutex_unlock(&sb->save_lock);
        if (r < 0) /* the next start does, it has no record */
                log_warning("%s: removing: %s, ignoring", sb->path, errno_name(r));
        sandbox_tell_gone(sb);
        fleet_forget(sb->fleet, sb);
}
