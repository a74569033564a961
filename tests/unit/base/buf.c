/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdint.h>

#include "tests/unit/base/alloc.h"
#include "transport/base/buf.h"

static void empty_buffer_is_an_empty_string(void)
{
        struct buf b = BUF_INIT(10);
        char *text;

        CHECK_STR(buf_str(&b), "");
        text = buf_steal(&b);
        CHECK_STR(text, "");
        free(text);
        buf_clear(&b);
        buf_done(&b);
        buf_wipe(&b);
}

static void everything_appended_is_there(void)
{
        struct buf b = BUF_INIT(1000);
        char *text;

        CHECK_EQ(buf_add(&b, "a\0b", 3), 0);
        CHECK_EQ(buf_add_str(&b, "cd"), 0);
        CHECK_EQ(buf_add_char(&b, 'e'), 0);
        CHECK_EQ(buf_addf(&b, "%d-%s", 42, "x"), 0);
        CHECK_EQ(buf_add(&b, NULL, 0), 0);
        CHECK_EQ(b.size, 10);
        CHECK(memcmp(b.data, "a\0bcde42-x", 11) == 0);
        buf_drop(&b, 0);
        buf_drop(&b, 3);
        CHECK_STR(buf_str(&b), "cde42-x");
        text = buf_steal(&b);
        CHECK_STR(text, "cde42-x");
        CHECK_EQ(b.size, 0);
        CHECK_EQ(b.max, 1000);
        CHECK_STR(buf_str(&b), "");
        free(text);
}

static void maximum_holds_and_a_refused_append_changes_nothing(void)
{
        struct buf b = BUF_INIT(8), none = BUF_INIT(0), all = BUF_INIT(SIZE_MAX);

        CHECK_EQ(buf_add_str(&b, "12345678"), 0);
        CHECK_EQ(buf_add_char(&b, '9'), -E2BIG);
        CHECK_EQ(buf_addf(&b, "%s", "9"), -E2BIG);
        CHECK(buf_reserve(&b, 1) == NULL);
        CHECK(buf_reserve(&b, SIZE_MAX) == NULL);
        CHECK_STR(buf_str(&b), "12345678");
        CHECK(b.room <= 9);
        CHECK_EQ(buf_add(&b, "", 0), 0);
        buf_clear(&b);
        CHECK_EQ(buf_add_str(&b, "123456789"), -E2BIG);
        CHECK_EQ(buf_add_str(&b, "1234"), 0);
        CHECK_EQ(buf_addf(&b, "%s", "56789"), -E2BIG);
        CHECK_STR(buf_str(&b), "1234");
        buf_done(&b);

        CHECK_EQ(buf_add_char(&none, 'x'), -E2BIG);
        CHECK_EQ(buf_add(&none, "", 0), 0);
        buf_done(&none);
        CHECK_EQ(buf_add_char(&all, 'x'), -E2BIG); /* no room for the NUL to count */
        buf_done(&all);
}

static void growing_keeps_all_bytes(void)
{
        struct buf b = BUF_INIT(10 * 1024 * 1024);
        uint32_t expected = 0;

        for (uint32_t i = 0; i < 1000000; i++)
                if (buf_add(&b, &i, sizeof(i)) != 0)
                        break;
        if (!CHECK_EQ(b.size, 4000000))
                return;
        for (size_t at = 0; at < b.size; at += sizeof(uint32_t), expected++)
                if (memcmp(b.data + at, &expected, sizeof(expected)) != 0)
                        break;
        CHECK_EQ(expected, 1000000);
        buf_wipe(&b);
        CHECK(b.data == NULL);
}

static void reserved_room_becomes_text(void)
{
        struct buf b = BUF_INIT(100);
        char *at;

        CHECK_EQ(buf_add_str(&b, "ab"), 0);
        at = buf_reserve(&b, 98);
        if (!CHECK(at))
                return;
        memset(at, 'x', 98);
        b.size += 98;
        CHECK_EQ(strlen(buf_str(&b)), 100);
        b.size = 3;
        CHECK_STR(buf_str(&b), "abx");
        buf_done(&b);
}

static int fill(void)
{
        struct buf b = BUF_INIT(1024 * 1024);
        char *text = NULL;
        int r = 0;

        for (int i = 0; i < 100000 && r == 0; i++) {
                size_t before = b.size;

                r = i % 2 ? buf_addf(&b, "%s", "123") : buf_add_str(&b, "123");
                if (r < 0) {
                        CHECK_EQ(b.size, before);
                        CHECK_EQ(strlen(buf_str(&b)), before);
                }
        }
        if (r == 0) {
                text = buf_steal(&b);
                CHECK(text);
        }
        free(text);
        buf_done(&b);
        return r;
}

static int steal_empty(void)
{
        struct buf b = BUF_INIT(1);
        char *text = buf_steal(&b);

        free(text);
        return text ? 0 : -ENOMEM;
}

static void lack_of_memory_is_said(void)
{
        CHECK(alloc_fail_each(fill) > 5);
        CHECK_EQ(alloc_fail_each(steal_empty), 1);
}

int main(void)
{
        RUN(empty_buffer_is_an_empty_string);
        RUN(everything_appended_is_there);
        RUN(maximum_holds_and_a_refused_append_changes_nothing);
        RUN(growing_keeps_all_bytes);
        RUN(reserved_room_becomes_text);
        RUN(lack_of_memory_is_said);
        return check_result();
}
