/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/shell/frame.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "transport/base/random.h"

#define TOKEN_SIZE (SHELL_TOKEN_SIZE - 1)
#define HOLD_MAX ((size_t)2 << 20)
#define ERR_MAX ((size_t)16 * 1024) /* of stderr that is held at once */
#define ERR_HEAD ((size_t)512) /* of it that a sentence may need */

int shell_token(char ret[SHELL_TOKEN_SIZE])
{
        unsigned char bits[16];
        int r = random_bytes(bits, sizeof(bits));

        for (size_t i = 0; r == 0 && i < sizeof(bits); i++)
                (void)snprintf(ret + 2 * i, 3, "%02x", bits[i]);
        return r;
}

int run_init(struct run *run, struct shell_sink *to)
{
        *run = (struct run){.to = to, .hold = BUF_INIT(HOLD_MAX), .err = BUF_INIT(2 * ERR_MAX)};
        return shell_token(run->token);
}

void run_done(struct run *run)
{
        buf_done(&run->hold);
        buf_done(&run->err);
}

/* Bytes at the end of `data` that may be the beginning of "\nT ". */
static size_t held_back(const char *data, size_t size, const char *mark, size_t mark_size)
{
        for (size_t n = size < mark_size ? size : mark_size - 1; n > 0; n--) {
                if (memcmp(data + size - n, mark, n) == 0)
                        return n;
        }
        return 0;
}

static void give(struct run *run, const char *data, size_t size)
{
        run->has_moved |= size > 0;
        if (size > 0 && run->error == 0 && run->to)
                run->error = run->to->data(run->to, data, size);
}

/* Takes what it can of the bytes; the number of those taken. */
static size_t take_before(struct run *run, const char *data, size_t size)
{
        char mark[TOKEN_SIZE + 2];
        const char *at;

        (void)snprintf(mark, sizeof(mark), "%s\n", run->token);
        at = memmem(data, size, mark, TOKEN_SIZE + 1);
        if (!at)
                return size - held_back(data, size, mark, TOKEN_SIZE + 1);
        run->phase = WITHIN;
        return (size_t)(at - data) + TOKEN_SIZE + 1;
}

static size_t take_within(struct run *run, const char *data, size_t size)
{
        char mark[TOKEN_SIZE + 3];
        const char *at;
        size_t n;

        (void)snprintf(mark, sizeof(mark), "\n%s ", run->token);
        at = memmem(data, size, mark, TOKEN_SIZE + 2);
        n = at ? (size_t)(at - data) : size - held_back(data, size, mark, TOKEN_SIZE + 2);
        give(run, data, n);
        if (!at)
                return n;
        run->phase = CODE;
        return n + TOKEN_SIZE + 2;
}

static size_t take_code(struct run *run, const char *data, size_t size)
{
        const char *at = memchr(data, '\n', size);
        int code = 0;

        if (!at) {
                if (size > 3)
                        run->error = -EPROTO;
                return 0;
        }
        for (const char *p = data; p < at; p++) {
                if (*p < '0' || *p > '9' || code > 255)
                        run->error = -EPROTO;
                else
                        code = code * 10 + (*p - '0');
        }
        run->code = code;
        run->phase = AFTER;
        return (size_t)(at - data) + 1;
}

static size_t take_some(struct run *run, const char *data, size_t size)
{
        switch (run->phase) {
        case BEFORE: return take_before(run, data, size);
        case WITHIN: return take_within(run, data, size);
        case CODE: return take_code(run, data, size);
        case AFTER: break;
        }
        return size;
}

static size_t take_all(struct run *run, const char *data, size_t size)
{
        size_t at = 0, n;

        while (at < size && run->error == 0 && (n = take_some(run, data + at, size - at)) > 0)
                at += n;
        return at;
}

void run_take_out(struct run *run, const char *data, size_t size)
{
        size_t n;

        if (run->hold.size == 0) {
                n = take_all(run, data, size);
                data += n;
                size -= n;
        }
        if (size == 0 || run->error != 0)
                return;
        run->error = buf_add(&run->hold, data, size);
        if (run->error == 0 && run->hold.size > 0)
                buf_drop(&run->hold, take_all(run, run->hold.data, run->hold.size));
}

void run_take_err(struct run *run, const char *data, size_t size)
{
        char mark[TOKEN_SIZE + 3];
        const char *at;

        (void)snprintf(mark, sizeof(mark), "\n%s\n", run->token);
        while (size > 0 && !run->has_err_end && run->error == 0) {
                size_t n = size < ERR_MAX / 2 ? size : ERR_MAX / 2;

                run->error = buf_add(&run->err, data, n);
                data += n;
                size -= n;
                at = run->err.size > 0 ? memmem(run->err.data, run->err.size, mark, TOKEN_SIZE + 2)
                                       : NULL;
                if (at) {
                        run->has_err_end = true;
                        run->err.size = (size_t)(at - run->err.data);
                } else if (run->err.size > ERR_HEAD + TOKEN_SIZE + 2) {
                        size_t tail = TOKEN_SIZE + 2;

                        memmove(run->err.data + ERR_HEAD, run->err.data + run->err.size - tail,
                                tail);
                        run->err.size = ERR_HEAD + tail;
                }
        }
}
