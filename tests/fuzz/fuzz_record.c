/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: what is taken has exactly the text that it came from. The input is tried as it is, and
 * as the lines between a first and a last line that are right, since no fuzzer guesses a checksum.
 */

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const char *text, size_t size)
{
        struct buf back = BUF_INIT(2 * 1024 * 1024);
        struct record *r = NULL;
        int x = record_parse(text, size, &r);

        assert(x == 0 || x == -EBADMSG || x == -ENOMEM);
        if (x == 0 && record_format(r, &back) == 0)
                assert(back.size == size && memcmp(back.data, text, size) == 0);
        record_free(r);
        buf_done(&back);
}

static uint64_t checksum(const struct buf *b)
{
        uint64_t sum = UINT64_C(0xcbf29ce484222325);

        for (size_t i = 0; i < b->size; i++)
                sum = (sum ^ (unsigned char)b->data[i]) * UINT64_C(0x100000001b3);
        return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct buf text = BUF_INIT(2 * 1024 * 1024);

        parse((const char *)data, size);
        if (buf_add_str(&text, "sbxfs record 1\n") == 0 && buf_add(&text, data, size) == 0 &&
            buf_addf(&text, "end %016llx\n", (unsigned long long)checksum(&text)) == 0)
                parse(text.data, text.size);
        buf_done(&text);
        return 0;
}
