/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/unit/check.h"
#include "transport/base/random.h"

static void bytes_are_all_filled(void)
{
        static unsigned char data[100000];
        unsigned zeros = 0;

        CHECK_EQ(random_bytes(data, sizeof(data)), 0);
        for (size_t i = 0; i < sizeof(data); i++)
                zeros += data[i] == 0;
        CHECK(zeros > 250 && zeros < 550); /* 390 expected, 7 sigma */
        CHECK_EQ(random_bytes(data, 0), 0);
}

static void ids_have_their_form_and_differ(void)
{
        char ids[1000][RANDOM_ID_SIZE];
        unsigned seen[256] = {0}, kinds = 0;

        for (int i = 0; i < 1000; i++) {
                CHECK_EQ(random_id(ids[i]), 0);
                CHECK_EQ(strlen(ids[i]), RANDOM_ID_SIZE - 1);
                CHECK_EQ(strspn(ids[i], "abcdefghijklmnopqrstuvwxyz0123456789"),
                         RANDOM_ID_SIZE - 1);
                for (int j = 0; j < i; j++)
                        CHECK(strcmp(ids[i], ids[j]) != 0);
                for (const char *c = ids[i]; *c; c++)
                        seen[(unsigned char)*c]++;
        }
        for (int c = 0; c < 256; c++)
                kinds += seen[c] > 350; /* 555 expected */
        CHECK_EQ(kinds, 36);
}

int main(void)
{
        RUN(bytes_are_all_filled);
        RUN(ids_have_their_form_and_differ);
        return check_result();
}
