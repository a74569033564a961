/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals to everything in the sandbox. In a pid namespace, and under a uid of our own, kill(-1) is
 * that, at one stroke. Otherwise our descendants are looked up in /proc, again and again until a
 * look finds no new one: since we are the subreaper, none can leave the tree.
 */

#include "providers/holder/holder.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/file.h"

#define ROUNDS_MAX 64

struct row {
        pid_t pid, parent;
        bool is_ours;
};

struct table {
        struct row *rows;
        size_t count, room;
};

/* The parent of "pid (name) state parent ...", any bytes in the name. 0: ended, or a zombie. */
static pid_t parent_of(const char *name)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(4096);
        char path[300];
        const char *at;
        char state;
        int parent;

        (void)snprintf(path, sizeof(path), "/proc/%s/stat", name);
        if (file_read(-1, path, &text) < 0)
                return 0;
        at = strrchr(buf_str(&text), ')');
        if (!at || sscanf(at + 1, " %c %d", &state, &parent) != 2 || state == 'Z' || state == 'X')
                return 0;
        return parent;
}

static bool table_add(struct table *t, pid_t pid, pid_t parent)
{
        if (t->count == t->room) {
                size_t room = t->room ? t->room * 2 : 256;
                struct row *rows = reallocarray(t->rows, room, sizeof(*rows));

                if (!rows)
                        return false;
                t->rows = rows;
                t->room = room;
        }
        t->rows[t->count++] = (struct row){.pid = pid, .parent = parent};
        return true;
}

static void table_read(struct table *t)
{
        _cleanup_(closedirp) DIR *dir = opendir("/proc");
        const struct dirent *entry;

        t->count = 0;
        while (dir && (entry = readdir(dir))) {
                pid_t parent;

                if (!isdigit((unsigned char)entry->d_name[0]) ||
                    !(parent = parent_of(entry->d_name)))
                        continue;
                if (!table_add(t, (pid_t)strtol(entry->d_name, NULL, 10), parent))
                        return;
        }
}

static bool is_ours(const struct table *t, pid_t pid, pid_t self)
{
        if (pid == self)
                return true;
        for (size_t i = 0; i < t->count; i++) {
                if (t->rows[i].pid == pid)
                        return t->rows[i].is_ours;
        }
        return false;
}

static void table_mark(struct table *t)
{
        pid_t self = getpid();
        bool changed = true;

        while (changed) {
                changed = false;
                for (size_t i = 0; i < t->count; i++) {
                        struct row *row = &t->rows[i];

                        if (!row->is_ours && is_ours(t, row->parent, self))
                                row->is_ours = changed = true;
                }
        }
}

static bool was_there(const struct table *t, pid_t pid)
{
        for (size_t i = 0; i < t->count; i++) {
                if (t->rows[i].pid == pid && t->rows[i].is_ours)
                        return true;
        }
        return false;
}

static void kill_tree(int signal)
{
        struct table now = {0}, before = {0};
        bool found = true;

        for (unsigned i = 0; found && i < ROUNDS_MAX; i++) {
                struct table swap = before;

                found = false;
                table_read(&now);
                table_mark(&now);
                for (size_t n = 0; n < now.count; n++) {
                        if (!now.rows[n].is_ours || was_there(&before, now.rows[n].pid))
                                continue;
                        found = true;
                        (void)kill(now.rows[n].pid, signal); /* it may have ended just now */
                }
                before = now;
                now = swap;
        }
        free(now.rows);
        free(before.rows);
}

void kill_all(const struct holder *h, int signal)
{
        if (h->reach == REACH_TREE)
                kill_tree(signal);
        else
                (void)kill(-1, signal); /* nobody there is fine */
}
