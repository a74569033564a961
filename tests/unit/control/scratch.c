/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/control/scratch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"

#define DIR_A UINT64_C(77)
#define DIR_B UINT64_C(78)

static void a_file_is_written_read_and_truncated(void)
{
        struct scratches *t = scratches_new();
        struct scratch_info info;
        struct scratch *s = NULL;
        char data[16] = "";

        CHECK_EQ(scratches_create(t, DIR_A, "x", 0640, &s), 0);
        CHECK_EQ(scratches_create(t, DIR_A, "x", 0640, &s), -EEXIST);
        CHECK_EQ(scratch_write(s, "hello", 5, 3), 0);
        CHECK_EQ(scratch_read(s, data, sizeof(data), 0), 8);
        CHECK(memcmp(data, "\0\0\0hello", 8) == 0);
        CHECK_EQ(scratch_truncate(s, 4), 0);
        CHECK_EQ(scratch_read(s, data, sizeof(data), 3), 1);
        CHECK_EQ(scratch_read(s, data, sizeof(data), 9), 0);
        CHECK_EQ(scratch_write(s, "x", 1, SCRATCH_SIZE_MAX), -EFBIG);
        CHECK_EQ(scratch_truncate(s, (uint64_t)SCRATCH_SIZE_MAX + 1), -EFBIG);
        scratch_get(s, &info);
        CHECK_EQ(info.size, 4);
        CHECK_EQ(info.mode, 0640);
        CHECK(info.is_named);
        scratch_unref(s);
        scratches_free(t);
}

static void an_open_file_outlives_its_name(void)
{
        struct scratches *t = scratches_new();
        struct scratch *s = NULL, *again;
        struct scratch_info info;

        CHECK_EQ(scratches_create(t, DIR_A, "x", 0600, &s), 0);
        CHECK_EQ(scratches_unlink(t, DIR_A, "x"), 0);
        CHECK_EQ(scratches_unlink(t, DIR_A, "x"), -ENOENT);
        CHECK(scratches_find(t, DIR_A, "x") == NULL);
        scratch_get(s, &info);
        CHECK(!info.is_named);
        again = scratches_by_id(t, info.id);
        CHECK(again == s);
        scratch_unref(again);
        scratch_unref(s);
        CHECK(scratches_by_id(t, info.id) == NULL);
        scratches_free(t);
}

static void a_rename_replaces_within_its_directory(void)
{
        struct scratches *t = scratches_new();
        struct scratch *a = NULL, *b = NULL, *found;

        CHECK_EQ(scratches_create(t, DIR_A, "a", 0600, &a), 0);
        CHECK_EQ(scratches_create(t, DIR_A, "b", 0600, &b), 0);
        CHECK_EQ(scratches_rename(t, DIR_B, "a", "b"), -ENOENT);
        CHECK_EQ(scratches_rename(t, DIR_A, "a", "b"), 0);
        found = scratches_find(t, DIR_A, "b");
        CHECK(found == a);
        scratch_unref(found);
        CHECK_EQ(scratches_rename(t, DIR_A, "b", "b"), 0);
        found = scratches_find(t, DIR_A, "b");
        CHECK(found == a);
        scratch_unref(found);
        scratch_unref(a);
        scratch_unref(b);
        scratches_free(t);
}

static void a_directory_holds_a_bounded_number(void)
{
        struct scratches *t = scratches_new();
        struct scratch *s = NULL;
        char name[256];
        uint32_t id;

        for (int i = 0; i < SCRATCH_COUNT_MAX; i++) {
                (void)snprintf(name, sizeof(name), "f%d", i);
                CHECK_EQ(scratches_create(t, DIR_A, name, 0600, &s), 0);
                scratch_unref(s);
        }
        CHECK_EQ(scratches_create(t, DIR_A, "one more", 0600, &s), -ENOSPC);
        CHECK_EQ(scratches_create(t, DIR_B, "elsewhere", 0600, &s), 0);
        scratch_unref(s);
        CHECK(scratches_at(t, DIR_A, 0, name, &id));
        CHECK_STR(name, "f0");
        CHECK(!scratches_at(t, DIR_A, SCRATCH_COUNT_MAX, name, &id));
        scratches_drop_dir(t, DIR_A);
        CHECK(!scratches_at(t, DIR_A, 0, name, &id));
        CHECK(scratches_at(t, DIR_B, 0, name, &id));
        scratches_free(t);
}

int main(void)
{
        RUN(a_file_is_written_read_and_truncated);
        RUN(an_open_file_outlives_its_name);
        RUN(a_rename_replaces_within_its_directory);
        RUN(a_directory_holds_a_bounded_number);
        return check_result();
}
