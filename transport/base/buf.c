/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The growing buffer. Memory doubles up to what the maximum needs. Small memory that is given up by
 * growing is overwritten, so that a secret which grew leaves no copies behind; what is larger than
 * SMALL is moved by the kernel page by page and leaves none.
 */

#include "transport/base/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 64
#define SMALL ((size_t)128 * 1024)

void buf_done(struct buf *b)
{
        free(b->data);
        *b = BUF_INIT(b->max);
}

void buf_wipe(struct buf *b)
{
        if (b->data)
                explicit_bzero(b->data, b->room);
        buf_done(b);
}

void buf_clear(struct buf *b)
{
        b->size = 0;
        if (b->data)
                b->data[0] = '\0';
}

static char *move(struct buf *b, size_t room)
{
        char *data;

        if (b->room > SMALL)
                return realloc(b->data, room);

        data = malloc(room);
        if (!data)
                return NULL;
        if (b->data) {
                memcpy(data, b->data, b->size);
                explicit_bzero(b->data, b->room);
                free(b->data);
        }
        return data;
}

/* Room for `size` more bytes and the final NUL. */
static int grow(struct buf *b, size_t size)
{
        size_t need, room;
        char *data;

        assert(b->size <= b->max);
        if (size > b->max - b->size || b->max == SIZE_MAX)
                return -E2BIG;
        need = b->size + size + 1;
        if (need <= b->room)
                return 0;

        room = b->room > SIZE_MAX / 2 ? SIZE_MAX : b->room * 2;
        if (room < ROOM_MIN)
                room = ROOM_MIN;
        if (room > b->max + 1)
                room = b->max + 1;
        if (room < need)
                room = need;
        data = move(b, room);
        if (!data)
                return -ENOMEM;
        data[b->size] = '\0';
        b->data = data;
        b->room = room;
        return 0;
}

char *buf_reserve(struct buf *b, size_t size)
{
        return grow(b, size) < 0 ? NULL : b->data + b->size;
}

int buf_add(struct buf *b, const void *data, size_t size)
{
        int r = grow(b, size);

        if (r < 0)
                return r;
        if (size > 0)
                memcpy(b->data + b->size, data, size);
        b->size += size;
        b->data[b->size] = '\0';
        return 0;
}

int buf_add_str(struct buf *b, const char *text)
{
        return buf_add(b, text, strlen(text));
}

int buf_add_char(struct buf *b, char c)
{
        return buf_add(b, &c, 1);
}

int buf_addf(struct buf *b, const char *format, ...)
{
        va_list args;
        int r;

        va_start(args, format);
        r = buf_addv(b, format, args);
        va_end(args);
        return r;
}

int buf_addv(struct buf *b, const char *format, va_list args)
{
        va_list again;
        int n, r;

        va_copy(again, args);
        n = vsnprintf(NULL, 0, format, again);
        va_end(again);
        if (n < 0)
                return errno == ENOMEM ? -ENOMEM : -E2BIG; /* glibc: no memory, or beyond INT_MAX */

        r = grow(b, (size_t)n);
        if (r < 0)
                return r;
        (void)vsnprintf(b->data + b->size, (size_t)n + 1, format, args); /* measured above */
        b->size += (size_t)n;
        return 0;
}

void buf_drop(struct buf *b, size_t size)
{
        assert(size <= b->size);
        if (size == 0)
                return;
        b->size -= size;
        memmove(b->data, b->data + size, b->size);
        b->data[b->size] = '\0';
}

const char *buf_str(const struct buf *b)
{
        if (!b->data)
                return "";
        b->data[b->size] = '\0'; /* after buf_reserve the bytes are the caller's, the NUL is ours */
        return b->data;
}

char *buf_steal(struct buf *b)
{
        char *data;

        if (!b->data)
                return strdup("");
        data = b->data;
        data[b->size] = '\0';
        *b = BUF_INIT(b->max);
        return data;
}
