/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/sandbox/results.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"

static char *print(struct results *r)
{
        struct buf text = BUF_INIT(1 << 20);

        CHECK_EQ(results_print(r, &text), 0);
        return buf_steal(&text);
}

#define CHECK_PRINT(r, expected)                                                                   \
        do {                                                                                       \
                char *text_ = print(r);                                                            \
                CHECK_STR(text_, (expected));                                                      \
                free(text_);                                                                       \
        } while (0)

static void a_command_is_pending_then_ok_or_error(void)
{
        struct results *r = results_new();

        CHECK_PRINT(r, "");
        CHECK_EQ(results_add(r, "", "exec make"), 1);
        CHECK_EQ(results_add(r, "web", "create web"), 2);
        CHECK_EQ(results_add(r, "web", "stop"), 3);
        CHECK_PRINT(r, "1 pending - exec make\n2 pending web create web\n3 pending web stop\n");
        results_name(r, 1, "7");
        results_end(r, 3, -EBUSY, "it is being destroyed");
        results_end(r, 1, 0, NULL);
        CHECK_PRINT(r, "1 ok 7 exec make\n2 pending web create web\n"
                       "3 error web stop # EBUSY: it is being destroyed\n");
        results_end(r, 3, 0, NULL); /* said twice */
        results_end(r, 2, -EIO, "");
        CHECK_PRINT(r, "1 ok 7 exec make\n2 error web create web # EIO: Input/output error\n"
                       "3 error web stop # EBUSY: it is being destroyed\n");
        results_end(r, 0, 0, NULL);
        results_end(r, 99, -EIO, "x");
        results_name(r, 99, "x");
        results_name(r, 0, "x");
        results_free(r);
}

static void the_last_32_are_kept(void)
{
        struct results *r = results_new();
        char *text;

        for (int i = 1; i <= 40; i++)
                CHECK_EQ(results_add(r, "v", "c"), i);
        results_end(r, 8, -EIO, "too old"); /* its place is another's by now */
        results_name(r, 8, "w");
        text = print(r);
        CHECK(strncmp(text, "9 pending v c\n10 ", 17) == 0);
        CHECK(strstr(text, "40 pending v c\n") && !strstr(text, "error") && !strstr(text, "w"));
        free(text);
        results_free(r);
}

static void nothing_forges_a_line(void)
{
        struct results *r = results_new();
        char *text, long_command[1000];

        CHECK_EQ(results_add(r, "a\nb", "exec x\n2 ok forged"), 1);
        results_end(r, 1, -EINVAL, "bad\033[1m\n3 ok forged");
        text = print(r);
        CHECK_STR(text, "1 error a\\x0ab exec x\\x0a2 ok forged # EINVAL: bad\\x1b[1m\\x0a3 ok "
                        "forged\n");
        free(text);
        memset(long_command, 'y', sizeof(long_command) - 1);
        long_command[sizeof(long_command) - 1] = '\0';
        CHECK_EQ(results_add(r, "v", long_command), 2);
        text = print(r);
        CHECK(strstr(text, "yyy...\n") && strlen(text) < 500);
        free(text);
        results_free(r);
        results_free(NULL);
}

static void *end_all(void *arg)
{
        struct results *r = arg;

        for (uint64_t i = 1; i <= 400; i++) {
                results_end(r, i, i % 2 ? -EIO : 0, "x");
                (void)results_add(r, "v", "c");
        }
        return NULL;
}

static void threads_may_meet(void)
{
        struct results *r = results_new();
        pthread_t threads[3];

        for (int i = 0; i < 3; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, end_all, r), 0);
        for (int i = 0; i < 20; i++)
                free(print(r));
        for (int i = 0; i < 3; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(results_add(r, "v", "c"), 1201);
        results_free(r);
}

int main(void)
{
        RUN(a_command_is_pending_then_ok_or_error);
        RUN(the_last_32_are_kept);
        RUN(nothing_forges_a_line);
        RUN(threads_may_meet);
        return check_result();
}
