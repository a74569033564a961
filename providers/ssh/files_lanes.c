/* SPDX-License-Identifier: Apache-2.0 */
/* Several connections for one large file. Nobody waits for a dial: what is there is used. */

#include "providers/ssh/files.h"

#include <errno.h>
#include <string.h>

#include "transport/base/clock.h"

#define FAR_NS (10 * NS_PER_MS)
#define MIB(n) ((uint64_t)(n) << 20)

uint64_t lanes_pay_from(unsigned lane, uint64_t round_trip_ns)
{
        if (round_trip_ns >= FAR_NS)
                return lane == HOST_BULK ? MIB(4) : MIB(16);
        return lane == HOST_BULK ? MIB(64) : lane == HOST_BULK + 1 ? MIB(128) : UINT64_MAX;
}

size_t lanes_take(struct ssh_host *h, const bool *is_wanted, struct ssh_link **ret)
{
        unsigned lanes = host_bulk_lanes(h);
        size_t n = 0;

        for (unsigned i = HOST_BULK; i < HOST_BULK + lanes && i < HOST_LANES; i++) {
                struct ssh_link *link;
                struct call quick;

                if (!is_wanted[i])
                        continue;
                call_init(&quick, clock_after(NS_PER_MS)); /* its dial goes on behind */
                if (host_link(h, &quick, (enum host_lane)i, &link) < 0)
                        continue;
                if (link->lane == (enum host_lane)i)
                        ret[n++] = link;
                else
                        link_unref(link); /* the host takes no more connections */
        }
        return n;
}

int lanes_run(struct ssh_link *const *links, struct sftp_op *ops, size_t count, struct call *c)
{
        struct sftp_queue q;
        struct sftp_op *op;
        struct call quiet;
        int r;

        call_init(&quiet, c->deadline_ns);
        sftp_queue_init(&q);
        for (size_t i = 0; i < count; i++) {
                if (ops[i].error == 0)
                        sftp_submit(links[i]->sftp, &q, &ops[i], 1);
        }
        do
                r = sftp_next(&q, &quiet, &op);
        while (r == 0);
        sftp_queue_done(&q);
        for (size_t i = 0; r != -ENOENT && i < count; i++) {
                if (ops[i].type == SFTP_OPEN && ops[i].error == 0 && ops[i].handle.size > 0)
                        sftp_close_later(links[i]->sftp, &ops[i].handle);
        }
        return r == -ENOENT ? 0 : r;
}
