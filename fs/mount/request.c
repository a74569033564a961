/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of requests: the struct, then its stat, texts and data, in one piece of memory. */

#include "fs/mount/request.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct copy {
        struct request r;
        struct stat st;
        char bytes[];
};

static size_t text_size(const char *text)
{
        return text ? strlen(text) + 1 : 0;
}

/* Append to the copy's bytes; NULL for what isn't there. */
static const void *add(char **at, const void *data, size_t size)
{
        char *to = *at;

        if (!data)
                return NULL;
        memcpy(to, data, size);
        *at += size;
        return to;
}

struct request *request_copy(const struct request *r)
{
        size_t names = text_size(r->a.name) + text_size(r->a.name2);
        size_t data_size = r->a.data ? r->a.size : 0;
        struct copy *c = malloc(sizeof(*c) + names + data_size);
        char *at;

        if (!c)
                return NULL;
        at = c->bytes;
        c->r.fuse = r->fuse;
        c->r.run = r->run;
        c->r.what = r->what;
        c->r.hold = r->hold;
        c->r.a = r->a;
        c->r.a.data = add(&at, r->a.data, data_size);
        c->r.a.name = add(&at, r->a.name, text_size(r->a.name));
        c->r.a.name2 = add(&at, r->a.name2, text_size(r->a.name2));
        if (r->a.st) {
                c->st = *r->a.st;
                c->r.a.st = &c->st;
        }
        memcpy(&c->r.op, &r->op, sizeof(r->op));
        atomic_init(&c->r.op.call.is_cancelled, false);
        return &c->r;
}

void request_free(struct request *r)
{
        free(r);
}
