/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/helpers.h"

#include "providers/ssh/exec_host.h"
#include "providers/ssh/ssh.h"
#include "transport/base/list.h"

static int open_helper(struct shell_opener *o, struct call *c, const char *command,
                       const struct stream_events *events, struct stream **ret)
{
        return host_open_program(container_of(o, struct ssh_host, opener), c, command, events, ret);
}

static bool make_room(struct shell_opener *o, struct call *c, uint64_t until_ns)
{
        return channel_make_room(container_of(o, struct ssh_host, opener)->execs, c, until_ns);
}

int helpers_init(struct ssh_host *h)
{
        int r;

        h->opener = (struct shell_opener){.open = open_helper, .make_room = make_room};
        r = shell_new(&h->opener, &h->shell);
        return r == 0 ? exec_host_new(h, &h->execs) : r;
}

void helpers_done(struct ssh_host *h)
{
        exec_host_free(h->execs);
        shell_free(h->shell);
}
