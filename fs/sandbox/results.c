/* SPDX-License-Identifier: Apache-2.0 */
/* The latest results: a ring, the line of number n at n % RESULTS_KEPT. */

#include "fs/sandbox/results.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/escape.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"

#define COMMAND_MAX 200 /* bytes shown of a command */

struct line {
        uint64_t seq;
        bool has_ended;
        int code;
        char value[64]; /* names and numbers */
        char command[COMMAND_MAX + 1]; /* escaped */
        char *sentence; /* escaped; NULL: none */
};

struct results {
        struct mutex lock;
        uint64_t last_seq GUARDED_BY(lock);
        struct line lines[RESULTS_KEPT] GUARDED_BY(lock);
};

struct results *results_new(void)
{
        struct results *r = calloc(1, sizeof(*r));

        if (r)
                mutex_init(&r->lock);
        return r;
}

void results_free(struct results *r)
{
        if (!r)
                return;
        mutex_lock(&r->lock);
        for (unsigned i = 0; i < RESULTS_KEPT; i++)
                free(r->lines[i].sentence);
        mutex_unlock(&r->lock);
        mutex_done(&r->lock);
        free(r);
}

uint64_t results_add(struct results *r, const char *value, const char *command)
{
        struct line *l;
        uint64_t seq;

        mutex_lock(&r->lock);
        seq = ++r->last_seq;
        l = &r->lines[seq % RESULTS_KEPT];
        free(l->sentence);
        *l = (struct line){.seq = seq};
        escape_text(value, strlen(value), l->value, sizeof(l->value));
        escape_text(command, strlen(command), l->command, sizeof(l->command));
        mutex_unlock(&r->lock);
        return seq;
}

void results_name(struct results *r, uint64_t seq, const char *value)
{
        struct line *l;

        mutex_lock(&r->lock);
        l = &r->lines[seq % RESULTS_KEPT];
        if (seq > 0 && l->seq == seq)
                escape_text(value, strlen(value), l->value, sizeof(l->value));
        mutex_unlock(&r->lock);
}

static char *escaped(const char *text)
{
        char line[ESCAPE_LINE_MAX + 1];

        escape_sentence(text, strlen(text), line, sizeof(line));
        return strdup(line);
}

void results_end(struct results *r, uint64_t seq, int code, const char *sentence)
{
        char *text = NULL;
        struct line *l;

        if (code < 0 && !(sentence && sentence[0]))
                sentence = strerrordesc_np(-code);
        if (code < 0)
                text = escaped(sentence ? sentence : "unknown error");
        mutex_lock(&r->lock);
        l = &r->lines[seq % RESULTS_KEPT];
        if (seq > 0 && l->seq == seq && !l->has_ended) {
                l->has_ended = true;
                l->code = code;
                l->sentence = text;
                text = NULL;
        }
        mutex_unlock(&r->lock);
        free(text);
}

static int print_line(const struct line *l, struct buf *to)
{
        const char *word = !l->has_ended ? "pending" : l->code < 0 ? "error" : "ok";
        int r = buf_addf(to, "%" PRIu64 " %s %s %s", l->seq, word, l->value[0] ? l->value : "-",
                         l->command);

        if (r == 0 && l->code < 0)
                r = buf_addf(to, " # %s: %s", errno_name(l->code),
                             l->sentence ? l->sentence : "out of memory");
        return r < 0 ? r : buf_add_char(to, '\n');
}

int results_print(struct results *r, struct buf *to)
{
        uint64_t seq;
        int x = 0;

        mutex_lock(&r->lock);
        seq = r->last_seq > RESULTS_KEPT ? r->last_seq - RESULTS_KEPT + 1 : 1;
        for (; x == 0 && seq <= r->last_seq; seq++)
                x = print_line(&r->lines[seq % RESULTS_KEPT], to);
        mutex_unlock(&r->lock);
        return x;
}
