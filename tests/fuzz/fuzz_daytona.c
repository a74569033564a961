/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Daytona says: of a sandbox, as any JSON; of an error, as any bytes; and the frames that come
 * by a terminal, or go there.
 */

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "providers/daytona/states.h"
#include "providers/inside/carry.h"
#include "transport/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void frames(const char *data, size_t size, bool is_to_it)
{
        struct carry_frame f;
        size_t used = 0, at = 0;
        int r;

        while ((r = carry_parse(data + at, size - at, is_to_it, &f, &used)) > 0) {
                assert(used >= CARRY_HEADER && used <= size - at);
                assert(f.data == data + at + CARRY_HEADER && f.size == used - CARRY_HEADER);
                assert(f.size <= (f.type == CARRY_ARGV ? CARRY_WORDS : CARRY_PART));
                if (f.type == CARRY_CREDIT)
                        (void)carry_credit(&f);
                at += used;
        }
        assert(r == 0 || r == -EPROTO);
}

static void describe(const char *data, size_t size)
{
        struct json *j = NULL;
        struct box_status status;

        if (json_parse(data, size, &j, NULL) < 0)
                return;
        daytona_describe(j, BOX_RUNNING, &status);
        assert(memchr(status.raw, '\0', sizeof(status.raw)));
        assert(memchr(status.image, '\0', sizeof(status.image)));
        assert(memchr(status.sentence, '\0', sizeof(status.sentence)));
        assert(daytona_label(j, LABEL_KEY));
        (void)daytona_can_pause(j);
        json_free(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const char *text = (const char *)data;
        char said[64];

        frames(text, size, false);
        frames(text, size, true);
        describe(text, size);
        daytona_sentence(text, size, said, sizeof(said));
        assert(memchr(said, '\0', sizeof(said)));
        assert(daytona_error(400, -EINVAL, said) < 0);
        assert(!(daytona_is_gone(404, text, size) && daytona_is_no_call(404, text, size)));
        (void)daytona_is_not_there_yet(400, text, size);
        return 0;
}
