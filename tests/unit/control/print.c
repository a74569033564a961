/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/control/print.h"

#include <string.h>

#include "fs/sandbox/sandbox.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"

static const char keys[] =
        "state phase since name provider id provider_state reachable image cpu memory disk expires env exec "
        "exec_state exit execs_running dirty_files dirty_bytes unsent generation created ready_ms last_error ";

static void every_key_is_there_in_order(void)
{
        struct buf lines = BUF_INIT(65536), seen = BUF_INIT(65536);
        struct sandbox_info info = {.reachable = -1};
        const char *at;

        CHECK_EQ(print_sandbox_status(&lines, &info), 0);
        for (at = buf_str(&lines); *at; at = strchr(at, '\n') + 1)
                CHECK_EQ(buf_add(&seen, at, strcspn(at, " ") + 1), 0);
        CHECK_STR(buf_str(&seen), keys);
        CHECK(strstr(buf_str(&lines), "\nname -\n") != NULL);
        CHECK(strstr(buf_str(&lines), "\nreachable -\n") != NULL);
        buf_done(&lines);
        buf_done(&seen);
}

static void times_have_milliseconds(void)
{
        struct buf lines = BUF_INIT(65536);
        struct task_info t = {.state = TASK_RUNNING,
                              .name = "7",
                              .started_real_ns = UINT64_C(1700000000012345678),
                              .pid = 9};

        CHECK_EQ(print_task_status(&lines, &t), 0);
        CHECK_STR(buf_str(&lines), "state running\nexit -\nstarted 1700000000.012\nended -\npid 9\n"
                                   "dropped_stdout 0\ndropped_stderr 0\nname 7\n");
        buf_done(&lines);
}

static void json_is_flat_and_knows_nothing_as_null(void)
{
        struct buf lines = BUF_INIT(256), json = BUF_INIT(256);

        CHECK_EQ(buf_add_str(&lines, "a -\nb two \"words\"\nc \n"), 0);
        CHECK_EQ(print_json(&json, &lines), 0);
        CHECK_STR(buf_str(&json), "{\"a\":null,\"b\":\"two \\\"words\\\"\",\"c\":\"\"}\n");
        buf_done(&lines);
        buf_done(&json);
}

int main(void)
{
        RUN(every_key_is_there_in_order);
        RUN(times_have_milliseconds);
        RUN(json_is_flat_and_knows_nothing_as_null);
        return check_result();
}
