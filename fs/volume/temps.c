/* SPDX-License-Identifier: Apache-2.0 */

#include "fs/volume/temps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/journal.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"

#define LEFT_MAX ((size_t)1 << 20) /* bytes of paths */
#define DIGITS 18 /* of a number; 13 are enough */

/* A letter, 'd' or 'f', a path, NUL; one after the other. */
struct temps {
        struct buf left;
};

bool temp_name(uint64_t number, enum temp_use use, char ret[TEMP_NAME_SIZE])
{
        char digits[DIGITS + 1] = {0};

        if (number == 0)
                return false;
        for (size_t i = 0; i < DIGITS; i++, number /= 36)
                digits[i] = "0123456789abcdefghijklmnopqrstuvwxyz"[number % 36];
        (void)snprintf(ret, TEMP_NAME_SIZE, ".sbxfs-%s%02u", digits, (unsigned)use); /* 27 bytes */
        return true;
}

int temps_new(struct temps **ret)
{
        struct temps *t = calloc(1, sizeof(*t));

        if (!t)
                return -ENOMEM;
        t->left = BUF_INIT(LEFT_MAX);
        *ret = t;
        return 0;
}

void temps_free(struct temps *t)
{
        if (!t)
                return;
        buf_done(&t->left);
        free(t);
}

static int add(struct temps *t, bool is_dir, const char *beside, const char *name)
{
        const char *slash = strrchr(beside, '/');
        size_t before = t->left.size;
        int r = buf_add_char(&t->left, is_dir ? 'd' : 'f');

        if (r == 0)
                r = buf_add(&t->left, beside, slash ? (size_t)(slash + 1 - beside) : 0);
        if (r == 0)
                r = buf_add(&t->left, name, strlen(name) + 1);
        if (r < 0)
                t->left.size = before;
        return r;
}

void temps_note(struct temps *t, const struct waiting *w)
{
        unsigned uses = w->record != 0 ? TEMP_USES : 1;
        char name[TEMP_NAME_SIZE];

        if (w->kind != CHANGE_STORE && w->kind != CHANGE_MKDIR)
                return;
        for (unsigned use = 0; use < uses; use++)
                if (temp_name(w->number, (enum temp_use)use, name) &&
                    add(t, w->kind == CHANGE_MKDIR, w->path, name) < 0)
                        log_warning("a temporary file may be left beside %s", w->path);
}

int temps_remove(struct temps *t, struct box *box, struct call *call)
{
        _cleanup_(freep) struct change *changes = NULL;
        size_t count = 0, n = 0;
        int r;

        for (size_t at = 0; at < t->left.size; at++)
                count += t->left.data[at] == '\0';
        if (count == 0)
                return 0;
        changes = calloc(count, sizeof(*changes));
        if (!changes)
                return -ENOMEM;
        for (size_t at = 0; at < t->left.size; at += strlen(t->left.data + at) + 1)
                changes[n++] = (struct change){.kind = t->left.data[at] == 'd' ? CHANGE_RMDIR
                                                                               : CHANGE_UNLINK,
                                               .path = t->left.data + at + 1};
        r = box_apply(box, call, changes, count); /* most are not there */
        call->sentence[0] = '\0';
        if (r == 0)
                buf_clear(&t->left);
        return r;
}
