/* SPDX-License-Identifier: Apache-2.0 */
/* An answer on a connection that may leave HTTP: its head, and the body of a refusal. */

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "transport/http/head.h"
#include "transport/http/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct http_reply reply = {0}, again = {0};
        const char *text = (const char *)data;
        size_t head = 0, same = 0;
        int r = head_parse(text, size, &reply, &head);

        assert(r == 0 || r == -EAGAIN || r == -EPROTO);
        if (r == 0) {
                const char *value = http_reply_header(&reply, "Content-Length");

                assert(head > 0 && head <= size && text[head - 1] == '\n');
                assert(reply.status >= 100 && reply.status <= 999);
                assert(!value || strlen(value) < size);
                /* What follows makes no difference to it. */
                assert(head_parse(text, head, &again, &same) == 0 && same == head);
                assert(head_parse(text, head - 1, &again, &same) == -EAGAIN);
                (void)head_take_body(text + head, size - head, false, &reply);
                assert(reply.body.size <= size - head);
                assert(head_take_body(text + head, size - head, true, &reply));
        }
        http_reply_done(&reply);
        http_reply_done(&again);
        return 0;
}
