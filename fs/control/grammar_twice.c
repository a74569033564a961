/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name of a key that stands twice in a JSON object. The JSON parser refuses such text without
 * saying which; this looks only at text that it refused at its end, and stays quiet where that came
 * too early.
 */

#include "fs/control/grammar_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"

#define DEPTH_SEEN 2 /* the outer object, and "env" and its like in it */

struct keys {
        struct pair *pairs; /* values are not used */
        size_t count;
};

static void keys_done(struct keys *k)
{
        for (size_t i = 0; i < k->count; i++) {
                free(k->pairs[i].key);
                free(k->pairs[i].value);
        }
        free(k->pairs);
        *k = (struct keys){0};
}

/* One past the string that begins at `at`; `size` when it doesn't end. */
static size_t skip_string(const char *text, size_t size, size_t at)
{
        for (at++; at < size && text[at] != '"'; at++)
                if (text[at] == '\\')
                        at++;
        return at < size ? at + 1 : size;
}

static bool is_key(const char *text, size_t size, size_t after)
{
        while (after < size && strchr(" \t\r\n", text[after]))
                after++;
        return after < size && text[after] == ':';
}

static int add_key(struct keys *k, const char *text, size_t begin, size_t end, struct call *c)
{
        _cleanup_(freep) char *key = strndup(text + begin + 1, end - begin - 2);

        return key ? pairs_add(&k->pairs, &k->count, key, "", c) : -ENOMEM;
}

static int find(const char *text, size_t size, struct keys keys[DEPTH_SEEN + 1], struct call *c)
{
        unsigned depth = 0;

        for (size_t at = 0; at < size; at++) {
                size_t after;
                int r = 0;

                switch (text[at]) {
                case '{':
                case '[':
                        if (++depth <= DEPTH_SEEN)
                                keys_done(&keys[depth]);
                        break;
                case '}':
                case ']':
                        if (depth == 0)
                                return 0;
                        depth--;
                        break;
                case '"':
                        after = skip_string(text, size, at);
                        if (depth >= 1 && depth <= DEPTH_SEEN && is_key(text, size, after))
                                r = add_key(&keys[depth], text, at, after, c);
                        at = after - 1;
                        break;
                default: break;
                }
                if (r < 0)
                        return r;
        }
        if (depth > 0)
                return 0;
        return call_fail(c, -EINVAL, "a key in a nested object is given twice");
}

int object_find_twice(const char *text, size_t size, struct call *c)
{
        struct keys keys[DEPTH_SEEN + 1] = {{0}};
        int r = find(text, size, keys, c);

        for (unsigned i = 0; i <= DEPTH_SEEN; i++)
                keys_done(&keys[i]);
        return r;
}
