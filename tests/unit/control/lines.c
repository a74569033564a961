/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/control/lines.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control/grammar.h"
#include "tests/unit/check.h"

/* What was committed, pieces separated by '|'; `fail` is answered. */
struct seen {
        struct buf text;
        int fail;
};

static int note(void *ctx, const char *text, size_t size)
{
        struct seen *s = ctx;

        if (s->fail)
                return s->fail;
        CHECK_EQ(buf_add(&s->text, text, size), 0);
        return buf_add_char(&s->text, '|');
}

static void a_line_commits_at_its_newline(void)
{
        struct seen s = {.text = BUF_INIT(4096)};
        struct lines l;

        lines_init(&l);
        CHECK_EQ(lines_write(&l, "exec a", 6, note, &s), 0);
        CHECK_STR(buf_str(&s.text), "");
        CHECK_EQ(lines_write(&l, "\n", 1, note, &s), 0);
        CHECK_STR(buf_str(&s.text), "exec a\n|");
        CHECK_EQ(lines_write(&l, "b\nc\nd", 5, note, &s), 0);
        CHECK_STR(buf_str(&s.text), "exec a\n|b\nc\n|");
        CHECK_EQ(lines_flush(&l, note, &s), 0);
        CHECK_STR(buf_str(&s.text), "exec a\n|b\nc\n|d|");
        CHECK_EQ(lines_flush(&l, note, &s), 0);
        CHECK_STR(buf_str(&s.text), "exec a\n|b\nc\n|d|");
        lines_wipe(&l);
        buf_done(&s.text);
}

static void a_refused_write_drops_the_rest(void)
{
        struct seen s = {.text = BUF_INIT(4096)};
        struct lines l;

        lines_init(&l);
        CHECK_EQ(lines_write(&l, "bad", 3, note, &s), 0);
        s.fail = -EINVAL;
        CHECK_EQ(lines_write(&l, "\nmore", 5, note, &s), -EINVAL);
        s.fail = 0;
        CHECK_EQ(lines_write(&l, "good\n", 5, note, &s), 0);
        CHECK_STR(buf_str(&s.text), "good\n|");
        lines_wipe(&l);
        buf_done(&s.text);
}

static void an_endless_line_is_too_big(void)
{
        struct seen s = {.text = BUF_INIT(4096)};
        size_t piece = 256 * 1024;
        char *data = malloc(piece);
        struct lines l;
        int r = 0;

        assert(data);
        memset(data, 'x', piece);
        lines_init(&l);
        for (int i = 0; i < 4; i++)
                CHECK_EQ(lines_write(&l, data, piece, note, &s), 0);
        r = lines_write(&l, "y", 1, note, &s);
        CHECK_EQ(r, -E2BIG);
        CHECK_EQ(lines_write(&l, "\n", 1, note, &s), 0); /* nothing is left of it */
        CHECK_STR(buf_str(&s.text), "\n|");
        free(data);
        lines_wipe(&l);
        buf_done(&s.text);
}

int main(void)
{
        RUN(a_line_commits_at_its_newline);
        RUN(a_refused_write_drops_the_rest);
        RUN(an_endless_line_is_too_big);
        return check_result();
}
