/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of virtual files: what they list is settled when they are opened.
 * Offsets count entries.
 */
#include "fs/tree/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"

static int add(struct handle *h, const char *text, uint64_t node, mode_t mode)
{
        struct name *more;
        char *copy;

        if ((h->name_count & (h->name_count - 1)) == 0) { /* room is a power of two */
                more = reallocarray(h->names, h->name_count ? 2 * h->name_count : 1, sizeof(*more));
                if (!more)
                        return -ENOMEM;
                h->names = more;
        }
        copy = strdup(text);
        if (!copy)
                return -ENOMEM;
        h->names[h->name_count++] = (struct name){copy, node, mode};
        return 0;
}

static uint64_t parent_of(const struct spot *s)
{
        if (s->row->number == ROW_TASK)
                return node_virtual(node_serial(s->node), 0, ROW_EXEC);
        if (s->row->number == ROW_EXEC)
                return node_virtual(node_serial(s->node), 0, ROW_SANDBOX);
        return TREE_ROOT;
}

static bool is_listed_now(struct tree *t, const struct spot *s, const struct row *row)
{
        struct task *latest;

        if (row->number == ROW_LAST) {
                latest = sandbox_latest(s->sandbox);
                task_unref(latest);
                return latest;
        }
        if (row->number == ROW_UNSENT)
                return slot_has_unsent(t, s->sandbox);
        return !s->task || !names_is_removed(t, s->node, row->number);
}

static int add_rows(struct tree *t, struct handle *h, const struct spot *s, enum row_place place)
{
        uint64_t serial = node_serial(s->node), number = s->task ? task_number(s->task) : 0;
        const struct row *row;
        int r = 0;

        for (size_t i = 0; r == 0 && (row = row_listed(place, i)); i++) {
                uint64_t node = row->kind == KIND_FS ? node_volume(serial, VOLUME_ROOT)
                                                     : node_virtual(serial, number, row->number);

                if (is_listed_now(t, s, row))
                        r = add(h, row->name, node, row->mode);
        }
        return r;
}

static int add_scratches(struct tree *t, struct handle *h, const struct spot *s)
{
        char name[256];
        uint32_t id;
        int r = 0;

        for (size_t i = 0; r == 0 && scratches_at(t->scratches, s->node, i, name, &id); i++)
                r = add(h, name, node_virtual(node_serial(s->node), id, ROW_SCRATCH),
                        S_IFREG | 0600);
        return r;
}

/* Numbers of things that come and go: asked for until the room suffices. */
static int numbers_of(size_t (*list)(void *of, uint64_t *to, size_t count), void *of,
                      uint64_t **ret, size_t *ret_count)
{
        size_t room = 64, count;

        for (;;) {
                uint64_t *numbers = reallocarray(NULL, room, sizeof(*numbers));

                if (!numbers)
                        return -ENOMEM;
                count = list(of, numbers, room);
                if (count <= room) {
                        *ret = numbers;
                        *ret_count = count;
                        return 0;
                }
                free(numbers);
                room = count + 16;
        }
}

static size_t list_sandboxes(void *of, uint64_t *to, size_t count)
{
        return fleet_list(of, to, count);
}

static size_t list_tasks(void *of, uint64_t *to, size_t count)
{
        return sandbox_list_tasks(of, to, count);
}

static int add_sandboxes(struct tree *t, struct handle *h)
{
        struct fleet *fleet = atomic_load(&t->fleet);
        _cleanup_(freep) uint64_t *serials = NULL;
        size_t count = 0;
        int r = fleet ? numbers_of(list_sandboxes, fleet, &serials, &count) : 0;

        for (size_t i = 0; r == 0 && i < count; i++) {
                _cleanup_(sandbox_freep) struct sandbox *sb = fleet_by_serial(fleet, serials[i]);
                char name[NAME_SIZE];

                if (!sb)
                        continue;
                sandbox_get_name(sb, name);
                r = add(h, name, node_virtual(serials[i], 0, ROW_SANDBOX), S_IFDIR);
        }
        return r;
}

static int add_tasks(struct handle *h, const struct spot *s)
{
        _cleanup_(freep) uint64_t *numbers = NULL;
        size_t count = 0;
        int r = numbers_of(list_tasks, s->sandbox, &numbers, &count);

        for (size_t i = 0; r == 0 && i < count; i++) {
                _cleanup_(task_freep) struct task *task =
                        sandbox_task_by_number(s->sandbox, numbers[i]);
                struct task_info info;

                if (!task)
                        continue;
                task_get(task, &info);
                r = add(h, info.name, node_virtual(node_serial(s->node), numbers[i], ROW_TASK),
                        S_IFDIR);
        }
        return r;
}

int dir_open(struct tree *t, struct spot *s, struct handle **ret)
{
        enum row_place place;
        struct handle *h;
        int r = spot_place(s, &place);

        if (r < 0)
                return r;
        h = handle_new(s->node);
        if (!h)
                return -ENOMEM;

        r = add(h, ".", s->node, S_IFDIR);
        r = r < 0 ? r : add(h, "..", parent_of(s), S_IFDIR);
        r = r < 0 ? r : add_rows(t, h, s, place);
        if (place == PLACE_ROOT)
                r = r < 0 ? r : add_sandboxes(t, h);
        if (place == PLACE_EXEC)
                r = r < 0 ? r : add_tasks(h, s);
        r = r < 0 ? r : add_scratches(t, h, s);
        if (r < 0) {
                handle_free(h);
                return r;
        }
        h->spot = *s;
        *s = (struct spot){0};
        *ret = h;
        return 0;
}

int dir_read(struct tree *t, struct handle *h, uint64_t offset, struct tree_dir_sink *to)
{
        (void)t; /* the list was made when the directory was opened */
        for (uint64_t i = offset; i < h->name_count; i++) {
                struct tree_entry e = {
                        .st = {.st_ino = h->names[i].node, .st_mode = h->names[i].mode}};

                if (!to->add(to, h->names[i].text, &e, i + 1))
                        break;
        }
        return 0;
}
