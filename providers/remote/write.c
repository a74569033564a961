/* SPDX-License-Identifier: Apache-2.0 */
/* JSON written piece by piece; see write.h. */

#include "providers/remote/write.h"

#include "providers/provider.h"
#include "transport/base/buf.h"
#include "transport/base/json.h"

void write_raw(struct json_out *o, const char *text)
{
        if (o->failed == 0)
                o->failed = buf_add_str(o->to, text);
}

void write_string(struct json_out *o, const char *text)
{
        if (o->failed == 0)
                o->failed = json_add_string(o->to, text);
}

void write_member(struct json_out *o, const char *before, const char *key, const char *value)
{
        write_raw(o, before);
        write_string(o, key);
        write_raw(o, ":");
        write_string(o, value);
}

void write_pairs(struct json_out *o, const char *key, const struct pair *pairs, size_t count)
{
        if (count == 0)
                return;
        write_raw(o, ",");
        write_string(o, key);
        write_raw(o, ":{");
        for (size_t i = 0; i < count; i++)
                write_member(o, i > 0 ? "," : "", pairs[i].key, pairs[i].value);
        write_raw(o, "}");
}
