/* SPDX-License-Identifier: Apache-2.0 */
/* What a creation made whose answer was lost: found by our label; see remote.h. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "providers/remote/remote.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"

#define FIND_NS (4 * NS_PER_S) /* it may come up a little after its answer was lost */
#define STEP_NS (500 * NS_PER_MS)
#define FURNISH_NS (20 * NS_PER_S) /* for what is left to do in it */

bool remote_may_be_made(int r)
{
        return r == -EHOSTUNREACH || r == -ETIMEDOUT || r == -EIO || r == -EPROTO;
}

struct by_key {
        struct box_sink sink;
        const char *key;
        char id[sizeof(((struct box *)NULL)->id)];
};

static int found_key(struct box_sink *to, const struct box_found *found)
{
        struct by_key *k = container_of(to, struct by_key, sink);

        if (strcmp(found->key, k->key) != 0 || strlen(found->id) >= sizeof(k->id))
                return 0;
        (void)snprintf(k->id, sizeof(k->id), "%s", found->id);
        return 1;
}

/* Its lists are asked until one has it. */
static void find(struct provider *p, const struct call *c, struct by_key *k)
{
        uint64_t until_ns = clock_after(FIND_NS);

        for (;;) {
                struct timespec step = clock_timespec(STEP_NS);
                struct call quiet;

                call_init(&quiet, until_ns);
                (void)p->ops->list(p, &quiet, &k->sink); /* the creation's own failure counts */
                if (k->id[0] || call_check(c) == -EINTR || clock_after(STEP_NS) >= until_ns)
                        return;
                (void)nanosleep(&step, NULL);
        }
}

int remote_find_made(struct provider *p, struct call *c, const struct spec *spec, char *ret,
                     size_t size)
{
        struct by_key k = {.sink.found = found_key, .key = spec->key};

        find(p, c, &k);
        if (!k.id[0])
                return -ENOENT;
        c->sentence[0] = '\0';
        if (c->deadline_ns < clock_after(FURNISH_NS))
                c->deadline_ns = clock_after(FURNISH_NS);
        (void)snprintf(ret, size, "%s", k.id);
        return 0;
}
