/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is in the fleet: all sandboxes by serial, and those that have a name in an array sorted by
 * it. A sandbox that is being destroyed has no name any more, but is in the fleet until it is
 * proven gone.
 */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "transport/base/buf.h"

/* The place of a name, or where it would be. */
static size_t place_locked(const struct fleet *f, const char *name, bool *ret_found)
        REQUIRES(f->lock)
{
        size_t low = 0, high = f->named_count;

        *ret_found = false;
        while (low < high) {
                size_t mid = (low + high) / 2;
                int order = strcmp(f->named[mid]->name, name);

                if (order == 0) {
                        *ret_found = true;
                        return mid;
                }
                if (order < 0)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

struct sandbox *fleet_find_locked(struct fleet *f, const char *name)
{
        bool is_found;
        size_t at = place_locked(f, name, &is_found);

        return is_found ? f->named[at] : NULL;
}

void fleet_touch(struct fleet *f)
{
        atomic_store(&f->changed_real_ns, clock_real_ns());
        atomic_fetch_add(&f->generation, 1);
        news_fleet(f);
}

static void touch_names(struct fleet *f)
{
        atomic_store(&f->names_real_ns, clock_real_ns());
        fleet_touch(f);
}

int fleet_add_name_locked(struct fleet *f, struct sandbox *sb, const char *name)
{
        bool is_found;
        size_t at = place_locked(f, name, &is_found);

        if (is_found)
                return -EEXIST;
        if (f->named_count == f->named_room) {
                size_t room = f->named_room ? f->named_room * 2 : 64;
                struct sandbox **named = reallocarray(f->named, room, sizeof(struct sandbox *));

                if (!named)
                        return -ENOMEM;
                f->named = named;
                f->named_room = room;
        }
        memmove(&f->named[at + 1], &f->named[at], (f->named_count - at) * sizeof(struct sandbox *));
        f->named[at] = sb;
        f->named_count++;
        mutex_lock(&sb->lock);
        if (name != sb->name) /* a loaded one has it */
                (void)snprintf(sb->name, sizeof(sb->name), "%s", name);
        sb->is_named = true;
        mutex_unlock(&sb->lock);
        touch_names(f);
        return 0;
}

void fleet_remove_name_locked(struct fleet *f, struct sandbox *sb)
{
        bool is_found;
        size_t at;

        if (!sb->is_named)
                return;
        at = place_locked(f, sb->name, &is_found);
        assert(is_found && f->named[at] == sb);
        memmove(&f->named[at], &f->named[at + 1],
                (f->named_count - at - 1) * sizeof(struct sandbox *));
        f->named_count--;
        mutex_lock(&sb->lock);
        sb->is_named = false;
        mutex_unlock(&sb->lock);
        touch_names(f);
}

int fleet_insert_locked(struct fleet *f, struct sandbox *sb)
{
        return imap_put(f->by_serial, sb->serial, sb);
}

bool fleet_hide(struct fleet *f, struct sandbox *sb)
{
        bool had_name;

        mutex_lock(&f->lock);
        had_name = sb->is_named;
        fleet_remove_name_locked(f, sb);
        mutex_unlock(&f->lock);
        return had_name;
}

int fleet_give_name(struct fleet *f, struct sandbox *sb, const char *base)
{
        int r = -EEXIST;

        mutex_lock(&f->lock);
        for (unsigned i = 1; i < 10000 && r == -EEXIST; i++) {
                char name[NAME_SIZE], end[16];
                int n = snprintf(end, sizeof(end), ".%u", i);

                (void)snprintf(name, sizeof(name), "%.*s%s", NAME_LENGTH_MAX - n, base, end);
                r = fleet_add_name_locked(f, sb, name);
        }
        mutex_unlock(&f->lock);
        return r;
}

void fleet_forget(struct fleet *f, struct sandbox *sb)
{
        bool was_there;

        mutex_lock(&f->lock);
        fleet_remove_name_locked(f, sb);
        was_there = imap_remove(f->by_serial, sb->serial) != NULL;
        mutex_unlock(&f->lock);
        fleet_touch(f);
        fleet_idle(f);
        if (was_there)
                sandbox_unref(sb);
}

struct sandbox **fleet_all(struct fleet *f, size_t *ret_count)
{
        struct sandbox **all, *sb;
        size_t cursor = 0, count = 0;

        mutex_lock(&f->lock);
        all = calloc(imap_count(f->by_serial) + 1, sizeof(struct sandbox *));
        while (all && (sb = imap_next(f->by_serial, &cursor, NULL)))
                all[count++] = sandbox_ref(sb);
        mutex_unlock(&f->lock);
        *ret_count = count;
        return all;
}

struct sandbox *fleet_find(struct fleet *f, const char *name)
{
        struct sandbox *sb;

        mutex_lock(&f->lock);
        sb = fleet_find_locked(f, name);
        if (sb)
                (void)sandbox_ref(sb);
        mutex_unlock(&f->lock);
        return sb;
}

struct sandbox *fleet_by_serial(struct fleet *f, uint64_t serial)
{
        struct sandbox *sb;

        mutex_lock(&f->lock);
        sb = imap_get(f->by_serial, serial);
        if (sb)
                (void)sandbox_ref(sb);
        mutex_unlock(&f->lock);
        return sb;
}

size_t fleet_list(struct fleet *f, uint64_t *serials, size_t count)
{
        size_t total;

        mutex_lock(&f->lock);
        total = f->named_count;
        for (size_t i = 0; i < total && i < count; i++)
                serials[i] = f->named[i]->serial;
        mutex_unlock(&f->lock);
        return total;
}

uint64_t fleet_generation(struct fleet *f)
{
        return atomic_load(&f->generation);
}

uint64_t fleet_names_real_ns(struct fleet *f)
{
        return atomic_load(&f->names_real_ns);
}

uint64_t fleet_changed_real_ns(struct fleet *f)
{
        return atomic_load(&f->changed_real_ns);
}

/* ---- the root's status ---- */

static int by_name(const void *a, const void *b)
{
        const struct sandbox_info *x = *(struct sandbox_info *const *)a,
                                  *y = *(struct sandbox_info *const *)b;
        int order = strcmp(x->name, y->name);

        return order ? order
                     : (x->created_real_ns > y->created_real_ns) -
                               (x->created_real_ns < y->created_real_ns);
}

static int print_sandboxes(struct sandbox_info *const *infos, size_t count, struct buf *to)
{
        int r = 0;

        for (size_t i = 0; i < count && r == 0; i++) {
                const struct sandbox_info *info = infos[i];

                r = buf_addf(to, "sandbox %s %s %s %s %s\n", info->name, info->provider,
                             box_state_name(info->state),
                             info->has_task ? task_state_name(info->task.state) : "-",
                             info->id[0] ? info->id : "-");
        }
        return r;
}

static int print_providers(struct fleet *f, struct buf *to)
{
        int r = 0;

        for (size_t i = 0; i < f->section_count && r == 0; i++) {
                const struct section *s = &f->sections[i];

                mutex_lock(&f->lock);
                r = buf_addf(to, "provider %s %s %s\n", s->instance, s->is_down ? "down" : "ok",
                             s->is_down && s->sentence[0] ? s->sentence : "-");
                mutex_unlock(&f->lock);
        }
        return r;
}

int fleet_print_status(struct fleet *f, struct buf *to)
{
        size_t count, done = 0;
        struct sandbox **all = fleet_all(f, &count);
        struct sandbox_info **infos = calloc(count + 1, sizeof(struct sandbox_info *));
        int r = all && infos ? 0 : -ENOMEM;

        for (; r == 0 && done < count; done++) {
                infos[done] = malloc(sizeof(struct sandbox_info));
                if (!infos[done])
                        r = -ENOMEM;
                else
                        sandbox_get(all[done], infos[done]);
        }
        if (r == 0) {
                qsort(infos, count, sizeof(struct sandbox_info *), by_name);
                r = print_sandboxes(infos, count, to);
        }
        if (r == 0)
                r = print_providers(f, to);
        for (size_t i = 0; infos && i < count; i++)
                free(infos[i]);
        for (size_t i = 0; all && i < count; i++)
                sandbox_unref(all[i]);
        free(infos);
        free(all);
        return r;
}
