/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "tests/unit/base/alloc.h"
#include "transport/base/buf.h"
#include "transport/base/escape.h"

static void check_escape(const char *text, size_t size, const char *expected)
{
        struct buf b = BUF_INIT(2000);
        char fixed[ESCAPE_LINE_MAX + 1];

        CHECK_EQ(escape_line(&b, text, size), 0);
        CHECK_STR(buf_str(&b), expected);
        escape_text(text, size, fixed, sizeof(fixed));
        CHECK_STR(fixed, expected);
        buf_done(&b);
}
#define CHECK_ESCAPE(text, expected) check_escape((text), sizeof(text) - 1, (expected))

static void only_what_is_harmless_stays(void)
{
        CHECK_ESCAPE("", "");
        CHECK_ESCAPE("plain ~text", "plain ~text");
        CHECK_ESCAPE("a\nb\r\t\x1b[31m\x7f", "a\\x0ab\\x0d\\x09\\x1b[31m\\x7f");
        CHECK_ESCAPE("nul\0here", "nul\\x00here");
        CHECK_ESCAPE("C:\\x0a", "C:\\x5cx0a");
        CHECK_ESCAPE("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
                     "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
        CHECK_ESCAPE("\xc2\x85|\xc2\x9b|\xc2\xa0", "\\xc2\\x85|\\xc2\\x9b|\xc2\xa0"); /* C1 */
        CHECK_ESCAPE("\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa",
                     "\\xe2\\x80\\xa8\\xe2\\x80\\xa9\xe2\x80\xaa");
        CHECK_ESCAPE("\xff\xc3", "\\xff\\xc3");
        CHECK_ESCAPE("\xc3(", "\\xc3(");
        CHECK_ESCAPE("\xed\xa0\x80", "\\xed\\xa0\\x80"); /* a surrogate */
        CHECK_ESCAPE("\xc0\xaf\xe0\x80\xaf", "\\xc0\\xaf\\xe0\\x80\\xaf"); /* overlong */
}

static void check_sentence(const char *text, const char *expected)
{
        char once[200], twice[200];

        escape_sentence(text, strlen(text), once, sizeof(once));
        CHECK_STR(once, expected);
        escape_sentence(once, strlen(once), twice, sizeof(twice));
        CHECK_STR(twice, expected);
        escape_text(text, strlen(text), once, sizeof(once));
        escape_sentence(once, strlen(once), twice, sizeof(twice));
        CHECK_STR(twice, once);
}

static void what_is_escaped_stays_so_in_a_sentence(void)
{
        check_sentence("", "");
        check_sentence("plain", "plain");
        check_sentence("no \x1b[31m luck\ngone", "no \\x1b[31m luck\\x0agone");
        check_sentence("no \\x1b[31m luck\\x0agone", "no \\x1b[31m luck\\x0agone");
        check_sentence("\\x5c \\xc3\xff\\x7f", "\\x5c \\xc3\\xff\\x7f");
        check_sentence("\\n\\033\\x\\", "\\x5cn\\x5c033\\x5cx\\x5c");
        check_sentence("\\x41\\x7e\\x1B\\x1", "\\x5cx41\\x5cx7e\\x5cx1B\\x5cx1"); /* none is ours */
        check_sentence("\\\\x1b", "\\x5c\\x1b");
}

static void utf8_is_measured_strictly(void)
{
        CHECK_EQ(utf8_length("", 0), 0);
        CHECK_EQ(utf8_length("\0", 1), 1);
        CHECK_EQ(utf8_length("\x7f", 1), 1);
        CHECK_EQ(utf8_length("\xc2\x80", 2), 2);
        CHECK_EQ(utf8_length("\xdf\xbf", 2), 2);
        CHECK_EQ(utf8_length("\xe0\xa0\x80", 3), 3);
        CHECK_EQ(utf8_length("\xed\x9f\xbf", 3), 3);
        CHECK_EQ(utf8_length("\xee\x80\x80", 3), 3);
        CHECK_EQ(utf8_length("\xf0\x90\x80\x80", 4), 4);
        CHECK_EQ(utf8_length("\xf4\x8f\xbf\xbf", 4), 4);
        CHECK_EQ(utf8_length("\x80", 1), 0);
        CHECK_EQ(utf8_length("\xc1\x80", 2), 0);
        CHECK_EQ(utf8_length("\xe0\x9f\xbf", 3), 0);
        CHECK_EQ(utf8_length("\xed\xa0\x80", 3), 0);
        CHECK_EQ(utf8_length("\xf0\x8f\xbf\xbf", 4), 0);
        CHECK_EQ(utf8_length("\xf4\x90\x80\x80", 4), 0);
        CHECK_EQ(utf8_length("\xf5\x80\x80\x80", 4), 0);
        CHECK_EQ(utf8_length("\xf0\x90\x80\x80", 3), 0); /* cut */
        CHECK_EQ(utf8_length("\xe2\x82", 2), 0);
        CHECK_EQ(utf8_length("\xe2\x82x", 3), 0);
}

static void long_text_is_cut_at_whole_tokens(void)
{
        char text[3000], to[16];
        struct buf b = BUF_INIT(5000);

        memset(text, 'a', sizeof(text));
        CHECK_EQ(escape_line(&b, text, ESCAPE_LINE_MAX), 0);
        CHECK_EQ(b.size, ESCAPE_LINE_MAX);
        CHECK_STR(buf_str(&b) + ESCAPE_LINE_MAX - 3, "aaa");
        buf_clear(&b);
        CHECK_EQ(escape_line(&b, text, ESCAPE_LINE_MAX + 1), 0);
        CHECK_EQ(b.size, ESCAPE_LINE_MAX);
        CHECK_STR(buf_str(&b) + ESCAPE_LINE_MAX - 4, "a...");
        buf_clear(&b);
        memset(text, '\n', sizeof(text));
        CHECK_EQ(escape_line(&b, text, sizeof(text)), 0);
        CHECK_EQ(b.size, ESCAPE_LINE_MAX - 1);
        CHECK_STR(buf_str(&b) + b.size - 7, "\\x0a...");
        buf_done(&b);

        escape_text("\n\n\n\n\n", 5, to, 16);
        CHECK_STR(to, "\\x0a\\x0a\\x0a...");
        escape_text("\n\n\n", 3, to, 8);
        CHECK_STR(to, "\\x0a...");
        escape_text("\n\n\n", 3, to, 7);
        CHECK_STR(to, "...");
        escape_text("\n\n", 2, to, 3);
        CHECK_STR(to, "..");
        escape_text("a\xe2\x82\xac\xe2\x82\xac", 7, to, 7);
        CHECK_STR(to, "a...");
        escape_text("a\xe2\x82\xac\xe2\x82\xac", 7, to, 8);
        CHECK_STR(to, "a\xe2\x82\xac\xe2\x82\xac");
        escape_text("ab", 2, to, 1);
        CHECK_STR(to, "");
        to[0] = 'x';
        escape_text("ab", 2, to, 0);
        CHECK_EQ(to[0], 'x');
}

static int add_line(void)
{
        struct buf b = BUF_INIT(10);
        int r = escape_line(&b, "abc", 3);

        buf_done(&b);
        return r;
}

static void limits_are_said(void)
{
        struct buf b = BUF_INIT(10);

        CHECK_EQ(escape_line(&b, "\n\n\n", 3), -E2BIG);
        CHECK_STR(buf_str(&b), "");
        buf_done(&b);
        CHECK_EQ(alloc_fail_each(add_line), 1);
}

int main(void)
{
        RUN(only_what_is_harmless_stays);
        RUN(what_is_escaped_stays_so_in_a_sentence);
        RUN(utf8_is_measured_strictly);
        RUN(long_text_is_cut_at_whole_tokens);
        RUN(limits_are_said);
        return check_result();
}
