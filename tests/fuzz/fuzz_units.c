/* SPDX-License-Identifier: Apache-2.0 */
/* Quantities: whatever is taken has a spelling that gives the same value again. */

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/units.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *text = strndup((const char *)data, size), spelling[32];
        uint64_t value, back = 0;
        uint32_t milli, milli_back = 0;
        int r;

        if (!text)
                return 0;
        if (units_parse_cpu(text, &milli) == 0) {
                units_format_cpu(milli, spelling, sizeof(spelling));
                r = units_parse_cpu(spelling, &milli_back);
                assert(r == 0 && milli_back == milli);
        }
        if (units_parse_size(text, &value) == 0) {
                units_format_size(value, spelling, sizeof(spelling));
                r = units_parse_size(spelling, &back);
                assert(r == 0 && back == value);
        }
        if (units_parse_span(text, &value) == 0) {
                units_format_span(value, spelling, sizeof(spelling));
                r = units_parse_span(spelling, &back);
                assert(r == 0 && back == value);
        }
        if (units_parse_count(text, 1000, &value) == 0)
                assert(value <= 1000);
        free(text);
        return 0;
}
