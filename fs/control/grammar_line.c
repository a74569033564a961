/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line as words, quoted as in sh: '...' is literal; "..." knows \\ \" \$ \`; outside, a backslash
 * makes the next byte literal. Nothing is expanded. Bytes need not be UTF-8.
 */

#include "fs/control/grammar_parts.h"

#include <errno.h>
#include <string.h>

#include "transport/base/escape.h"

void line_init(struct line *l, const char *text, size_t size)
{
        *l = (struct line){
                .text = text,
                .size = size,
                .shown = BUF_INIT(GRAMMAR_SHOWN_MAX),
        };
        line_skip_blanks(l);
        l->shown_to = l->at;
}

void line_done(struct line *l)
{
        buf_wipe(&l->shown);
}

static bool is_blank(char c)
{
        return c == ' ' || c == '\t';
}

void line_skip_blanks(struct line *l)
{
        while (l->at < l->size && is_blank(l->text[l->at]))
                l->at++;
}

bool line_is_end(const struct line *l)
{
        struct line rest = *l;

        line_skip_blanks(&rest);
        return rest.at == rest.size;
}

size_t line_column(const struct line *l)
{
        return l->at + 1;
}

/* Up to the closing quote; `at` is on the opening one. */
static int add_single(struct line *l, struct buf *to, struct call *c)
{
        size_t begin = l->at + 1;
        const char *end = memchr(l->text + begin, '\'', l->size - begin);

        if (!end)
                return call_fail(c, -EINVAL, "column %zu: unclosed quote", line_column(l));
        l->at = (size_t)(end - l->text) + 1;
        return buf_add(to, l->text + begin, l->at - 1 - begin);
}

static int add_double(struct line *l, struct buf *to, struct call *c)
{
        size_t column = line_column(l);
        int r = 0;

        for (l->at++; l->at < l->size && r == 0; l->at++) {
                char now = l->text[l->at];
                char next = l->at + 1 < l->size ? l->text[l->at + 1] : '\0';

                if (now == '"') {
                        l->at++;
                        return 0;
                }
                if (now == '\\' && next != '\0' && strchr("\\\"$`", next)) {
                        now = next;
                        l->at++;
                }
                r = buf_add_char(to, now);
        }
        return r < 0 ? r : call_fail(c, -EINVAL, "column %zu: unclosed quote", column);
}

static int add_escaped(struct line *l, struct buf *to, struct call *c)
{
        if (l->at + 1 == l->size)
                return call_fail(c, -EINVAL, "column %zu: nothing follows the backslash",
                                 line_column(l));
        l->at += 2;
        return buf_add_char(to, l->text[l->at - 1]);
}

int line_word(struct line *l, struct buf *to, struct call *c)
{
        int r;

        buf_clear(to);
        line_skip_blanks(l);
        if (l->at == l->size)
                return 0;
        r = buf_add(to, "", 0); /* an empty word is a word */
        while (r == 0 && l->at < l->size && !is_blank(l->text[l->at])) {
                switch (l->text[l->at]) {
                case '\'': r = add_single(l, to, c); break;
                case '"': r = add_double(l, to, c); break;
                case '\\': r = add_escaped(l, to, c); break;
                default: r = buf_add_char(to, l->text[l->at++]); break;
                }
        }
        return r < 0 ? r : 1;
}

static bool is_key_byte(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '.' || c == '-';
}

size_t line_key(const struct line *l)
{
        size_t at = l->at;

        while (at < l->size && is_key_byte(l->text[at]))
                at++;
        return at < l->size && l->text[at] == '=' ? at - l->at : 0;
}

int line_hide(struct line *l, size_t begin)
{
        int r = buf_add(&l->shown, l->text + l->shown_to, begin - l->shown_to);

        l->shown_to = l->at;
        return r < 0 ? r : buf_add_str(&l->shown, "***");
}

char *line_shown(struct line *l)
{
        if (buf_add(&l->shown, l->text + l->shown_to, l->size - l->shown_to) < 0)
                return NULL;
        l->shown_to = l->size;
        return buf_steal(&l->shown);
}

struct quoted quoted(const char *word, size_t size)
{
        struct quoted q;
        size_t at = size;

        if (size > QUOTED_MAX) {
                at = 0;
                while (at < QUOTED_MAX) {
                        unsigned length = utf8_length(word + at, size - at);

                        length = length ? length : 1;
                        if (at + length > QUOTED_MAX)
                                break;
                        at += length;
                }
        }
        memcpy(q.text, word, at);
        memcpy(q.text + at, at < size ? "..." : "", at < size ? sizeof("...") : 1);
        return q;
}
