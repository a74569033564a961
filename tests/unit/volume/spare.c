/* SPDX-License-Identifier: Apache-2.0 */
/* What came in another file's stead, kept for a moment. */

#include "fs/volume/spare.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/check.h"

static struct stat version(ino_t ino, const char *bytes)
{
        struct stat st = {.st_ino = ino, .st_size = (off_t)strlen(bytes)};

        st.st_mtim.tv_nsec = 7;
        return st;
}

static void only_the_same_version_is_given_and_once(void)
{
        struct stat one = version(1, "one"), other = one;
        uint64_t sent_ns = 0;
        struct spares s;
        char *data;

        spares_init(&s);
        spares_keep(&s, &one, "one", 100, 3);
        other.st_mtim.tv_nsec++;
        CHECK(!spares_take(&s, &other, 0, 3, &sent_ns));
        other = version(2, "one");
        CHECK(!spares_take(&s, &other, 0, 3, &sent_ns));
        CHECK(!spares_take(&s, &one, 101, 3, &sent_ns)); /* too old */
        CHECK(!spares_take(&s, &one, 0, 4, &sent_ns)); /* a command has ended since */
        data = spares_take(&s, &one, 100, 3, &sent_ns);
        CHECK(data && memcmp(data, "one", 3) == 0);
        CHECK_EQ(sent_ns, 100);
        free(data);
        CHECK(!spares_take(&s, &one, 0, 3, &sent_ns));
        spares_done(&s);
}

static void oldest_gives_way(void)
{
        uint64_t sent_ns;
        struct spares s;

        spares_init(&s);
        for (ino_t i = 1; i <= SPARES_MAX + 1; i++) {
                struct stat st = version(i, "x");

                spares_keep(&s, &st, "x", i, 0);
        }
        for (ino_t i = 1; i <= SPARES_MAX + 1; i++) {
                struct stat st = version(i, "x");
                void *data = spares_take(&s, &st, 0, 0, &sent_ns);

                CHECK_EQ(data != NULL, i > 1);
                free(data);
        }
        spares_keep(&s, &(struct stat){.st_ino = 9}, "", 1, 0); /* empty, and freed by the end */
        spares_done(&s);
}

int main(void)
{
        RUN(only_the_same_version_is_given_and_once);
        RUN(oldest_gives_way);
        return check_result();
}
