/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an answer means: statuses and libcurl's own codes as errno, and the sentence that an error's
 * body has for people.
 */

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "transport/base/escape.h"
#include "transport/base/json.h"
#include "transport/http/private.h"
#include "transport/http/url.h"

int http_status_error(unsigned status)
{
        static const struct {
                unsigned status;
                int error;
        } table[] = {
                {400, -EINVAL}, {401, -EACCES},     {402, -EDQUOT}, {403, -EPERM},
                {404, -ENOENT}, {405, -EOPNOTSUPP}, {406, -EINVAL}, {408, -ETIMEDOUT},
                {409, -EBUSY},  {410, -ENOENT},     {411, -EINVAL}, {412, -EBUSY},
                {413, -EFBIG},  {414, -EINVAL},     {415, -EINVAL}, {416, -ERANGE},
                {417, -EINVAL}, {421, -EPROTO},     {422, -EINVAL}, {423, -EBUSY},
                {424, -EBUSY},  {425, -EBUSY},      {429, -EAGAIN}, {431, -EINVAL},
                {451, -EPERM},  {501, -EOPNOTSUPP}, {505, -EPROTO}, {507, -ENOSPC},
        };

        if (status >= 200 && status < 300)
                return 0;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
                if (table[i].status == status)
                        return table[i].error;
        if (status >= 400 && status < 500)
                return -EINVAL;
        return status >= 500 && status < 600 ? -EIO : -EPROTO;
}

int http_curl_error(CURLcode code)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wswitch-enum"
        switch (code) {
        case CURLE_OK: return 0;
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_CONNECT:
        case CURLE_INTERFACE_FAILED:
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_PROXY:
        case CURLE_GOT_NOTHING:
        case CURLE_SEND_ERROR:
        case CURLE_RECV_ERROR:
        case CURLE_SEND_FAIL_REWIND:
        case CURLE_PARTIAL_FILE:
        case CURLE_NO_CONNECTION_AVAILABLE:
        case CURLE_ABORTED_BY_CALLBACK: /* ours: libcurl would have sent it again */
                return -EHOSTUNREACH;
        case CURLE_OPERATION_TIMEDOUT: return -ETIMEDOUT;
        case CURLE_OUT_OF_MEMORY: return -ENOMEM;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_ISSUER_ERROR:
        case CURLE_SSL_INVALIDCERTSTATUS: return -EPERM;
        case CURLE_URL_MALFORMAT:
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_SSL_CERTPROBLEM:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_SSL_ENGINE_NOTFOUND:
        case CURLE_SSL_CIPHER: return -EINVAL;
        case CURLE_FILESIZE_EXCEEDED: return -EFBIG;
        case CURLE_WEIRD_SERVER_REPLY:
        case CURLE_BAD_CONTENT_ENCODING:
        case CURLE_WRITE_ERROR:
        case CURLE_HTTP_RETURNED_ERROR: return -EPROTO;
        default: return -EIO;
        }
#pragma GCC diagnostic pop
}

/* ---- the server's own words ---- */

static const char *member(const struct json *j, const char *key)
{
        const struct json *value = json_get(j, key);
        const char *text = json_string(value);

        return text && *text ? text : NULL;
}

static const char *message_of(const struct json *j)
{
        static const char *const keys[] = {"message", "error", "detail", "msg", "title"};
        const struct json *inner = json_get(j, "error");

        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
                const char *text = member(j, keys[i]);

                if (text)
                        return text;
        }
        return inner ? member(inner, "message") : NULL;
}

/* Plain text's first line; nothing of a page that is made for browsers. */
static void first_line(const struct buf *body, char *text, size_t size)
{
        const char *start = buf_str(body);
        size_t length;

        start += strspn(start, " \t\r\n");
        length = strcspn(start, "\r\n");
        if (*start == '<' || *start == '{' || *start == '[')
                length = 0;
        (void)snprintf(text, size, "%.*s", (int)(length < size ? length : size - 1), start);
}

int http_explain(const struct http_reply *reply, int error, char *text, size_t size)
{
        struct json *j = NULL;
        const char *message = NULL;

        text[0] = '\0';
        if (reply->body.size > 0 && json_parse(reply->body.data, reply->body.size, &j, NULL) == 0)
                message = message_of(j);
        if (message)
                (void)snprintf(text, size, "%s", message);
        else if (!j)
                first_line(&reply->body, text, size);
        json_free(j);
        return error;
}

static const char *phrase(unsigned status)
{
        static const struct {
                unsigned status;
                const char *phrase;
        } table[] = {
                {400, "bad request"},
                {401, "the key is missing or wrong"},
                {402, "payment is required"},
                {403, "forbidden"},
                {404, "not found"},
                {405, "method not allowed"},
                {408, "request time-out"},
                {409, "conflict"},
                {410, "gone"},
                {413, "too large"},
                {416, "no such range"},
                {422, "unprocessable"},
                {429, "too many requests"},
                {500, "internal error"},
                {501, "not implemented"},
                {502, "bad gateway"},
                {503, "unavailable"},
                {504, "gateway time-out"},
                {507, "no space left"},
        };

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
                if (table[i].status == status)
                        return table[i].phrase;
        return "unexpected status";
}

/* Where to, without what may be secret in it. None is followed: keys go to one place only. */
static int fail_redirect(const struct exchange *x, struct call *c, int error)
{
        const char *to = http_reply_header(x->reply, "Location");
        char text[256];

        escape_text(to ? to : "?", to ? url_query_at(to) : 1, text, sizeof(text));
        return http_fail(x, c, error, "%u sends us to %s, which is not followed", x->reply->status,
                         text);
}

int http_fail_status(struct exchange *x, struct call *c)
{
        char raw[CALL_SENTENCE_MAX] = "", text[CALL_SENTENCE_MAX];
        const struct http_reply *reply = x->reply;
        int r, error = http_status_error(reply->status);

        exchange_hide_answer(x);
        if (error == 0) /* a 2xx that the caller had no use for */
                error = -EPROTO;
        if (reply->status >= 300 && reply->status < 400)
                return fail_redirect(x, c, error);
        r = (x->http->explain ? x->http->explain : http_explain)(reply, error, raw, sizeof(raw));
        if (r < 0)
                error = r;
        secrets_hide(&x->http->secrets, raw);
        secrets_hide(&x->secrets, raw);
        escape_text(raw, strnlen(raw, sizeof(raw)), text, sizeof(text));
        return http_fail(x, c, error, "%u %s%s%s", reply->status, phrase(reply->status),
                         text[0] ? ": " : "", text);
}
