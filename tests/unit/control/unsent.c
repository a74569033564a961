/* SPDX-License-Identifier: Apache-2.0 */
/* On a volume that only knows what was refused. */
#include "fs/control/unsent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/volume.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"

static struct {
        const char *path, *sentence;
        int error;
} refused[8];
static size_t count;

static void add(const char *path, int error, const char *sentence)
{
        refused[count].path = path;
        refused[count].error = error;
        refused[count++].sentence = sentence;
}

static void name_all(struct volume *v, struct vol_unsent_sink *to)
{
        (void)v;
        for (size_t i = 0; i < count; i++)
                to->one(to, refused[i].path, refused[i].error, refused[i].sentence);
}

static int discard(struct volume *v, const char *path)
{
        size_t left = 0;
        int r;

        (void)v;
        for (size_t i = 0; i < count; i++)
                if (strcmp(refused[i].path, path) != 0)
                        refused[left++] = refused[i];
        r = left < count ? 0 : -ENOENT;
        count = left;
        return r;
}

static const struct vol_ops ops = {.unsent = name_all, .discard = discard};
static const struct vol_ops direct; /* it refuses nothing later */
static struct volume volume = {.ops = &ops}, local = {.ops = &direct};
static struct call call;

static void begin(void)
{
        count = 0;
        call_init(&call, NEVER_NS);
}

static void each_is_one_line(void)
{
        struct buf text = BUF_INIT(1024 * 1024);

        begin();
        add("d/file", -ENOSPC, "");
        add("a\nb\\c\xff", -EACCES, "write: Permission denied");
        add("", -EPERM, "the host says\nno");
        CHECK_EQ(unsent_print(&volume, &text), 0);
        CHECK_STR(buf_str(&text), "d/file: No space left on device\n"
                                  "a\\x0ab\\x5cc\\xff: write: Permission denied\n"
                                  ".: Operation not permitted: the host says\\x0ano\n");
        buf_done(&text);
}

static void a_path_is_never_cut(void)
{
        char path[4000], line[5 * sizeof(path)];
        struct buf text = BUF_INIT(1024 * 1024);

        begin();
        memset(path, '\x01', sizeof(path) - 1);
        path[sizeof(path) - 1] = '\0';
        add(path, -EIO, "");
        CHECK_EQ(unsent_print(&volume, &text), 0);
        CHECK_EQ(text.size, 4 * strlen(path) + strlen(": Input/output error\n"));
        memcpy(line, buf_str(&text), 4 * strlen(path));
        line[4 * strlen(path)] = '\0';
        CHECK_EQ(unsent_discard(&volume, line, false, &call), 0);
        CHECK_EQ(count, 0);
        buf_done(&text);
}

static void what_has_no_room_is_counted(void)
{
        struct buf text = BUF_INIT(40000);

        begin();
        add("a", -EIO, "");
        add("b", -EIO, "");
        CHECK_EQ(unsent_print(&volume, &text), 0);
        CHECK_STR(buf_str(&text), "a: Input/output error\nb: Input/output error\n");
        buf_done(&text);
        text = BUF_INIT(30000);
        CHECK_EQ(unsent_print(&volume, &text), 0);
        CHECK_STR(buf_str(&text), "... and 2 more\n");
        buf_done(&text);
}

static void a_command_is_told_the_first(void)
{
        begin();
        CHECK_EQ(unsent_check(&volume, &call), 0);
        add("d/file", -ENOSPC, "");
        CHECK_EQ(unsent_check(&volume, &call), -ENOSPC);
        CHECK_STR(call.sentence, "unsent d/file (No space left on device): write `retry` or "
                                 "`discard PATH` to ctl, or give the exec unsent=ignore");
        add("second", -EIO, "");
        add("third", -EIO, "");
        CHECK_EQ(unsent_check(&volume, &call), -ENOSPC);
        CHECK(strstr(call.sentence, "unsent d/file (No space left on device) and 2 more: ") ==
              call.sentence);
        CHECK_EQ(unsent_check(&local, &call), 0);
        CHECK_EQ(unsent_check(NULL, &call), 0);
}

static void a_path_is_said_in_several_ways(void)
{
        static const struct {
                const char *path, *said;
        } ways[] = {
                {"d/file", "d/file"}, {"d/file", "fs/d/file"},
                {"d", "d/"},          {"d", "fs/d//"},
                {"a\nb", "a\\x0ab"},  {"a\nb", "fs/a\\x0ab"},
                {"a\nb", "a\nb"},     {"a\\x0ab", "a\\x0ab"},
                {"fs/x", "fs/x"},     {"fs/x", "fs/fs/x"},
                {"\xff", "\\xff"},    {"", "."},
                {"", "fs/"},          {"back\\slash", "back\\slash"},
        };

        for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
                begin();
                add("other", -EIO, "");
                add(ways[i].path, -EIO, "");
                CHECK_EQ(unsent_discard(&volume, ways[i].said, true, &call), 0);
                CHECK_EQ(count, 2);
                CHECK_EQ(unsent_discard(&volume, ways[i].said, false, &call), 0);
                CHECK_EQ(count, 1);
                CHECK_STR(refused[0].path, "other");
        }
}

static void the_bytes_themselves_come_first(void)
{
        begin();
        add("a\nb", -EIO, ""); /* is shown as the other is */
        add("a\\x0ab", -EIO, "");
        CHECK_EQ(unsent_discard(&volume, "a\\x0ab", false, &call), 0);
        CHECK_EQ(count, 1);
        CHECK_STR(refused[0].path, "a\nb");
        begin();
        add("x", -EIO, "");
        add("fs/x", -EIO, "");
        CHECK_EQ(unsent_discard(&volume, "fs/x", false, &call), 0);
        CHECK_STR(refused[0].path, "x");
}

static void nothing_else_is_given_up(void)
{
        static const char *const others[] = {"d",  "d/fil", "d/file2", "/d/file",
                                             "fs", "file",  "",        "."};

        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
                begin();
                add("d/file", -EIO, "");
                CHECK_EQ(unsent_discard(&volume, others[i], false, &call), -ENOENT);
                CHECK(strstr(call.sentence, "nothing is unsent at"));
                CHECK_EQ(count, 1);
        }
        CHECK_EQ(unsent_discard(NULL, "d/file", true, &call), -ENOENT);
        CHECK_EQ(unsent_discard(&local, "d/file", false, &call), -ENOENT);
}

int main(void)
{
        RUN(each_is_one_line);
        RUN(a_path_is_never_cut);
        RUN(what_has_no_room_is_counted);
        RUN(a_command_is_told_the_first);
        RUN(a_path_is_said_in_several_ways);
        RUN(the_bytes_themselves_come_first);
        RUN(nothing_else_is_given_up);
        return check_result();
}
