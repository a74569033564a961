/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>

#include "tests/unit/check.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"

static void check_says_why_to_stop(void)
{
        struct call c, late;

        call_init(&c, NEVER_NS);
        CHECK_EQ(call_check(&c), 0);
        CHECK_STR(c.sentence, "");
        call_cancel(&c);
        CHECK_EQ(call_check(&c), -EINTR);

        call_init(&late, clock_mono_ns());
        CHECK_EQ(call_check(&late), -ETIMEDOUT);
        call_cancel(&late);
        CHECK_EQ(call_check(&late), -EINTR);
        CHECK(late.id != c.id);
        call_init(&late, clock_after(60 * NS_PER_S));
        CHECK_EQ(call_check(&late), 0);
}

static void sentences_are_told_and_wrapped(void)
{
        struct call c;

        call_init(&c, NEVER_NS);
        CHECK_EQ(call_fail(&c, -EINVAL, "no such %s", "image"), -EINVAL);
        CHECK_STR(c.sentence, "no such image");
        CHECK_EQ(call_wrap(&c, -EIO, "create '%s'", "web"), -EIO);
        CHECK_STR(c.sentence, "create 'web': no such image");
        CHECK_EQ(call_wrap(&c, -EIO, "line %d, ", 3), -EIO);
        CHECK_STR(c.sentence, "line 3, create 'web': no such image");
        CHECK_EQ(call_fail_errno(&c, -EACCES, "open %s", "/x"), -EACCES);
        CHECK_STR(c.sentence, "open /x: Permission denied");
        CHECK_EQ(call_fail(&c, -EIO, "again: %s", c.sentence), -EIO);
        CHECK_STR(c.sentence, "again: open /x: Permission denied");

        call_init(&c, NEVER_NS);
        CHECK_EQ(call_wrap(&c, -ENOSPC, "write"), -ENOSPC);
        CHECK_STR(c.sentence, "write: No space left on device");
        CHECK_EQ(call_fail_errno(&c, -9999, "x"), -9999);
        CHECK_STR(c.sentence, "x: unknown error");
}

static void long_sentences_are_cut_and_say_so(void)
{
        char text[4000];
        struct call c;

        call_init(&c, NEVER_NS);
        memset(text, 'a', sizeof(text) - 1);
        text[CALL_SENTENCE_MAX - 1] = '\0';
        (void)call_fail(&c, -EIO, "%s", text);
        CHECK_STR(c.sentence, text); /* just fits */

        text[CALL_SENTENCE_MAX - 1] = 'a';
        text[sizeof(text) - 1] = '\0';
        (void)call_fail(&c, -EIO, "%s", text);
        CHECK_EQ(strlen(c.sentence), CALL_SENTENCE_MAX - 1);
        CHECK_STR(c.sentence + CALL_SENTENCE_MAX - 5, "a...");
        (void)call_wrap(&c, -EIO, "%s", "wrapped");
        CHECK_EQ(strlen(c.sentence), CALL_SENTENCE_MAX - 1);
        CHECK_STR(c.sentence + CALL_SENTENCE_MAX - 5, "a...");
        CHECK(strncmp(c.sentence, "wrapped: aaa", 12) == 0);

        for (size_t i = 0; i + 2 < sizeof(text); i += 2)
                memcpy(text + i, "\xc3\xa4", 2);
        text[sizeof(text) - 2] = '\0';
        (void)call_fail_errno(&c, -EIO, "x%s", text);
        CHECK_STR(c.sentence + strlen(c.sentence) - 5, "\xc3\xa4...");
        (void)call_fail_errno(&c, -EIO, "%s", text);
        CHECK_STR(c.sentence + strlen(c.sentence) - 5, "\xc3\xa4...");
}

int main(void)
{
        RUN(check_says_why_to_stop);
        RUN(sentences_are_told_and_wrapped);
        RUN(long_sentences_are_cut_and_say_so);
        return check_result();
}
