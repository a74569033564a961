/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/quote.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "transport/base/buf.h"

/* On failure nothing was appended. */
static int cut(struct buf *to, size_t before, int r)
{
        if (r < 0 && to->data) {
                to->size = before;
                to->data[before] = '\0';
        }
        return r;
}

int quote_add(struct buf *to, const char *value)
{
        size_t before = to->size;
        int r = buf_add_char(to, '\'');

        while (r == 0 && *value) {
                size_t size = strcspn(value, "'");

                r = buf_add(to, value, size);
                value += size;
                if (r == 0 && *value == '\'') {
                        r = buf_add_str(to, "'\\''");
                        value++;
                }
        }
        if (r == 0)
                r = buf_add_char(to, '\'');
        return cut(to, before, r);
}

int quote_add_words(struct buf *to, const char *const *words)
{
        size_t before = to->size;
        int r = 0;

        for (size_t i = 0; words[i] && r == 0; i++) {
                r = i > 0 ? buf_add_char(to, ' ') : 0;
                if (r == 0)
                        r = quote_add(to, words[i]);
        }
        return cut(to, before, r);
}

int quote_addf(struct buf *to, const char *text, ...)
{
        size_t before = to->size;
        va_list values;
        int r = 0;

        va_start(values, text);
        while (r == 0 && *text) {
                size_t size = strcspn(text, "%");

                r = buf_add(to, text, size);
                text += size;
                if (r < 0 || !*text)
                        break;
                assert(text[1] == 's' || text[1] == '%');
                r = text[1] == '%' ? buf_add_char(to, '%') : quote_add(to, va_arg(values, char *));
                text += 2;
        }
        va_end(values);
        return cut(to, before, r);
}
