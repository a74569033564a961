/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets. A value like "Bearer KEY" is known by its last word, too: servers repeat that alone. */

#include "transport/http/secret.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/http/http.h"

#define SHORT_MAX 4 /* what is shorter would star out ordinary words */

void wipe_free(char *text)
{
        if (text)
                explicit_bzero(text, strlen(text));
        free(text);
}

static int add(struct secrets *s, const char *value)
{
        char **more, *copy;

        if (strlen(value) < SHORT_MAX)
                return 0;
        more = reallocarray(s->values, s->count + 1, sizeof(char *));
        if (!more)
                return -ENOMEM;
        s->values = more;
        copy = strdup(value);
        if (!copy)
                return -ENOMEM;
        s->values[s->count++] = copy;
        return 0;
}

int secrets_add(struct secrets *s, const struct http_header *headers, size_t count)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < count; i++) {
                const char *word;

                if (!headers[i].is_secret)
                        continue;
                r = add(s, headers[i].value);
                word = strrchr(headers[i].value, ' ');
                if (r == 0 && word)
                        r = add(s, word + 1);
        }
        return r;
}

void secrets_done(struct secrets *s)
{
        for (size_t i = 0; i < s->count; i++)
                wipe_free(s->values[i]);
        free(s->values);
        *s = (struct secrets){0};
}

static void hide_whole(const char *value, char *data, size_t size)
{
        size_t length = strlen(value);
        char *at = data, *end = data + size;

        while ((at = memmem(at, (size_t)(end - at), value, length))) {
                memset(at, '*', length);
                at += length;
        }
}

/* What the end of the text cut off has its beginning there. The "Bearer" of a key may be read. */
static void hide_cut(const char *value, char *data, size_t size)
{
        const char *word = strrchr(value, ' ');
        size_t least = word ? (size_t)(word - value) + 2 : SHORT_MAX + 1;
        size_t length = strlen(value) - 1;

        for (length = length < size ? length : size; length >= least; length--) {
                char *at = data + size - length;

                if (memcmp(at, value, length) == 0) {
                        memset(at, '*', length);
                        return;
                }
        }
}

void secrets_hide_data(const struct secrets *s, char *data, size_t size)
{
        if (size == 0)
                return;
        for (size_t i = 0; i < s->count; i++)
                hide_whole(s->values[i], data, size);
        for (size_t i = 0; i < s->count; i++)
                hide_cut(s->values[i], data, size);
}

void secrets_hide(const struct secrets *s, char *text)
{
        secrets_hide_data(s, text, strlen(text));
}
