/* SPDX-License-Identifier: Apache-2.0 */
/* Answers. reply->headers holds "Name: value" texts, each with its NUL. */

#include "transport/http/http.h"

#include <string.h>
#include <strings.h>

#include "transport/http/private.h"

void http_reply_done(struct http_reply *reply)
{
        buf_wipe(&reply->headers);
        buf_wipe(&reply->body);
        *reply = (struct http_reply){0};
}

int reply_add_header(struct http_reply *reply, const char *line, size_t size)
{
        int r;

        while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r' ||
                            line[size - 1] == ' ' || line[size - 1] == '\t'))
                size--;
        if (size == 0)
                return 0;
        r = buf_add(&reply->headers, line, size);
        return r < 0 ? r : buf_add_char(&reply->headers, '\0');
}

const char *reply_next_header(const struct http_reply *reply, size_t *cursor)
{
        const char *line;

        if (*cursor >= reply->headers.size)
                return NULL;
        line = reply->headers.data + *cursor;
        *cursor += strlen(line) + 1;
        return line;
}

const char *http_reply_header(const struct http_reply *reply, const char *name)
{
        size_t size = strlen(name), cursor = 0;
        const char *line, *value = NULL;

        while ((line = reply_next_header(reply, &cursor)))
                if (strncasecmp(line, name, size) == 0 && line[size] == ':')
                        value = line + size + 1 + strspn(line + size + 1, " \t");
        return value;
}
