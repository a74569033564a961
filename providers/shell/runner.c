/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/shell/runner.h"

#include <errno.h>
#include <time.h>

#include "transport/base/list.h"

static struct shell *shell_of(struct shell_runner *by)
{
        return container_of(by, struct shell_by_helpers, runner)->shell;
}

static int run(struct shell_runner *by, struct call *c, const char *script, struct shell_sink *to,
               int *ret_code)
{
        return shell_run(shell_of(by), c, script, to, ret_code);
}

static int run_stream(struct shell_runner *by, struct call *c, const char *taker,
                      const char *script, struct shell_source *from, struct shell_sink *to)
{
        int r;

        /* All are busy: nothing was sent. */
        while ((r = shell_run_stream(shell_of(by), c, taker, script, from, to)) == -EAGAIN) {
                const struct timespec pause = {.tv_nsec = 5000000};

                r = call_check(c);
                if (r < 0)
                        return call_fail_errno(c, r, "the shell in the sandbox is busy");
                (void)nanosleep(&pause, NULL);
        }
        return r;
}

struct shell_by_helpers shell_by_helpers(struct shell *s)
{
        return (struct shell_by_helpers){.runner = {run, run_stream}, .shell = s};
}
