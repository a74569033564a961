/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request on its way: what goes out, what comes in, and what became of it.
 *
 * libcurl sends a request again by itself when a kept connection turns out to be dead, whatever its
 * method. It is stopped before the second sending: only do.c knows whether a request may run twice.
 */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "transport/base/cleanup.h"
#include "transport/base/escape.h"
#include "transport/http/private.h"
#include "transport/http/url.h"

#define PATH_SHOWN 200
#define UPLOAD_BUFFER (512L << 10)
#define DOWNLOAD_BUFFER (256L << 10)
#define AGE_S 50L /* servers close after a minute, most of them */
#define AGE_ONCE_S 3L /* of a connection for what may not run twice: some close after 5 s */

const char *request_method(const struct http_request *q)
{
        return q->method ? q->method : "GET";
}

bool request_is_idempotent(const struct http_request *q)
{
        const char *method = request_method(q);

        return q->is_idempotent || strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
}

/* ---- sentences ---- */

static void hide(const struct exchange *x, char *text)
{
        secrets_hide(&x->http->secrets, text);
        secrets_hide(&x->secrets, text);
}

void exchange_hide_answer(struct exchange *x)
{
        struct buf *parts[] = {&x->reply->headers, &x->reply->body};

        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
                secrets_hide_data(&x->http->secrets, parts[i]->data, parts[i]->size);
                secrets_hide_data(&x->secrets, parts[i]->data, parts[i]->size);
        }
}

int http_fail(const struct exchange *x, struct call *c, int error, const char *format, ...)
{
        char text[CALL_SENTENCE_MAX], path[PATH_SHOWN + 1];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        hide(x, text);
        escape_text(x->request->path, url_query_at(x->request->path), path, sizeof(path));
        hide(x, path);
        return call_fail(c, error, "%s: %s %s: %s", x->http->name, request_method(x->request), path,
                         text);
}

/* ---- what goes out ---- */

static ssize_t read_memory(const struct http_request *q, char *to, size_t size, uint64_t offset)
{
        size_t rest = q->size - (size_t)offset;

        if (size > rest)
                size = rest;
        if (size > 0)
                memcpy(to, (const char *)q->data + offset, size);
        return (ssize_t)size;
}

static ssize_t read_source(struct exchange *x, struct http_source *from, char *to, size_t size)
{
        ssize_t n;

        if (from->size != HTTP_SIZE_UNKNOWN && size > from->size - x->sent)
                size = (size_t)(from->size - x->sent);
        if (size == 0)
                return 0;
        x->has_read = true;
        n = from->read(from, to, size, x->sent);
        assert(n <= (ssize_t)size);
        if (n == 0 && from->size != HTTP_SIZE_UNKNOWN)
                return -ENODATA; /* it has less than it said */
        return n;
}

static size_t give(struct exchange *x, ssize_t n)
{
        if (n == -EAGAIN) {
                x->is_waiting = true;
                return CURL_READFUNC_PAUSE;
        }
        if (n < 0) {
                x->error = (int)n;
                x->reason = "what was to be sent could not be read";
                return CURL_READFUNC_ABORT;
        }
        x->sent += (uint64_t)n;
        return (size_t)n;
}

static size_t on_read(char *to, size_t one, size_t count, void *ctx)
{
        struct exchange *x = ctx;
        const struct http_request *q = x->request;
        size_t size = one * count;

        return give(x, q->source ? read_source(x, q->source, to, size)
                                 : read_memory(q, to, size, x->sent));
}

/* The one streamed part of a form. */
static size_t on_read_part(char *to, size_t one, size_t count, void *ctx)
{
        struct exchange *x = ctx;

        for (size_t i = 0; i < x->request->part_count; i++)
                if (x->request->parts[i].source)
                        return give(x,
                                    read_source(x, x->request->parts[i].source, to, one * count));
        return CURL_READFUNC_ABORT;
}

/* While it is connected. NULL: no TLS, or not OpenSSL's. */
static SSL *ssl_of(CURL *easy)
{
        struct curl_tlssessioninfo *info = NULL;

        if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &info) != CURLE_OK || !info)
                return NULL;
        return info->backend == CURLSSLBACKEND_OPENSSL ? info->internals : NULL;
}

static int on_start(void *ctx, char *ip, char *local_ip, int port, int local_port)
{
        struct exchange *x = ctx;

        (void)ip;
        (void)local_ip;
        (void)port;
        (void)local_port;
        if (x->is_tunnel)
                x->ssl = ssl_of(x->easy);
        return x->starts++ == 0 ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

uint64_t exchange_moved(const struct exchange *x)
{
        curl_off_t up = 0, down = 0;
        long request = 0, headers = 0;

        (void)curl_easy_getinfo(x->easy, CURLINFO_SIZE_UPLOAD_T, &up);
        (void)curl_easy_getinfo(x->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
        (void)curl_easy_getinfo(x->easy, CURLINFO_REQUEST_SIZE, &request);
        (void)curl_easy_getinfo(x->easy, CURLINFO_HEADER_SIZE, &headers);
        return (uint64_t)up + (uint64_t)down + (uint64_t)request + (uint64_t)headers;
}

/* ---- its preparation ---- */

static int add_line(struct exchange *x, const char *line)
{
        struct curl_slist *more = line ? curl_slist_append(x->headers, line) : NULL;

        if (!more)
                return -ENOMEM;
        x->headers = more;
        return 0;
}

static int add_header(struct exchange *x, const struct http_header *header, struct call *c)
{
        char *line;
        int r;

        if (!header_is_valid(header))
                return http_fail(x, c, -EINVAL, "a header that can't be sent");
        line = header_line(header);
        r = add_line(x, line);
        wipe_free(line);
        return r;
}

static bool has_body(const struct http_request *q)
{
        const char *method = request_method(q);

        return q->data || q->source || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 ||
               strcmp(method, "PATCH") == 0;
}

static int add_headers(struct exchange *x, struct call *c)
{
        const struct http_request *q = x->request;
        char type[128];
        int r = add_line(x, "Expect:"); /* else libcurl waits a second for a 100 */

        for (size_t i = 0; r == 0 && i < x->http->header_count; i++)
                r = add_line(x, x->http->headers[i]);
        for (size_t i = 0; r == 0 && i < q->header_count; i++)
                r = add_header(x, &q->headers[i], c);
        if (r == 0 && q->part_count == 0 && (q->data || q->source)) {
                const char *usual = q->data ? "application/json" : "application/octet-stream";

                (void)snprintf(type, sizeof(type), "Content-Type: %s", q->type ? q->type : usual);
                r = add_line(x, type);
        }
        if (r == 0 && q->source && q->source->size == HTTP_SIZE_UNKNOWN)
                r = add_line(x, "Transfer-Encoding: chunked");
        return r == 0 ? secrets_add(&x->secrets, q->headers, q->header_count) : r;
}

#define SET(option, value)                                                                         \
        do {                                                                                       \
                CURLcode code_ = curl_easy_setopt(easy, option, value);                            \
                                                                                                   \
                if (code_ != CURLE_OK)                                                             \
                        return http_curl_error(code_);                                             \
        } while (0)

/* Sizes of buffers: for speed only, and refused where a handle still has one of another size. */
#define PREFER(option, value) ((void)curl_easy_setopt(easy, option, value))

static int set_body(struct exchange *x, CURL *easy)
{
        const struct http_request *q = x->request;
        uint64_t size = q->source ? q->source->size : q->size;

        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_READFUNCTION, on_read);
        SET(CURLOPT_READDATA, x);
        SET(CURLOPT_INFILESIZE_LARGE, size == HTTP_SIZE_UNKNOWN ? -1 : (curl_off_t)size);
        if (size > (uint64_t)64 << 10)
                PREFER(CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER);
        return 0;
}

static bool add_part(struct exchange *x, const struct http_part *p)
{
        curl_mimepart *part = curl_mime_addpart(x->mime);
        curl_off_t size = -1;
        CURLcode code;

        if (!part || curl_mime_name(part, p->name) != CURLE_OK ||
            curl_mime_filename(part, p->file_name) != CURLE_OK ||
            curl_mime_type(part, p->type) != CURLE_OK)
                return false;
        if (p->source && p->source->size != HTTP_SIZE_UNKNOWN)
                size = (curl_off_t)p->source->size;
        code = p->source ? curl_mime_data_cb(part, size, on_read_part, NULL, NULL, x)
                         : curl_mime_data(part, p->data ? p->data : "", p->size);
        return code == CURLE_OK;
}

static int set_parts(struct exchange *x, CURL *easy)
{
        unsigned sources = 0;

        x->mime = curl_mime_init(easy);
        if (!x->mime)
                return -ENOMEM;
        for (size_t i = 0; i < x->request->part_count; i++) {
                sources += x->request->parts[i].source != NULL;
                if (!add_part(x, &x->request->parts[i]))
                        return -ENOMEM;
        }
        assert(sources <= 1);
        SET(CURLOPT_MIMEPOST, x->mime);
        PREFER(CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER);
        return 0;
}

static int set_tunnel(CURL *easy)
{
        SET(CURLOPT_CONNECT_ONLY, 1L);
        SET(CURLOPT_HTTPPROXYTUNNEL, 1L);
        return 0;
}

static int set_request(struct exchange *x, CURL *easy)
{
        const struct http_request *q = x->request;
        const char *method = request_method(q);
        int r = 0;

        if (x->is_tunnel)
                return set_tunnel(easy);
        if (q->part_count > 0)
                r = set_parts(x, easy);
        else if (has_body(q))
                r = set_body(x, easy);
        else if (strcmp(method, "HEAD") == 0)
                SET(CURLOPT_NOBODY, 1L);
        if (r < 0)
                return r;
        SET(CURLOPT_CUSTOMREQUEST, method);
        SET(CURLOPT_HTTPHEADER, x->headers);
        SET(CURLOPT_MAXAGE_CONN, request_is_idempotent(q) ? AGE_S : AGE_ONCE_S);
        if (q->takes_gzip)
                SET(CURLOPT_ACCEPT_ENCODING, "gzip");
        if (q->range) {
                char text[48];

                if (q->range->size > 0)
                        (void)snprintf(text, sizeof(text), "%" PRIu64 "-%" PRIu64, q->range->offset,
                                       q->range->offset + q->range->size - 1);
                else
                        (void)snprintf(text, sizeof(text), "%" PRIu64 "-", q->range->offset);
                SET(CURLOPT_RANGE, text);
        }
        return 0;
}

static int set_callbacks(struct exchange *x, CURL *easy)
{
        SET(CURLOPT_ERRORBUFFER, x->why);
        SET(CURLOPT_PRIVATE, x);
        SET(CURLOPT_PREREQFUNCTION, on_start);
        SET(CURLOPT_PREREQDATA, x);
        SET(CURLOPT_HEADERFUNCTION, exchange_on_header);
        SET(CURLOPT_HEADERDATA, x);
        SET(CURLOPT_WRITEFUNCTION, exchange_on_body);
        SET(CURLOPT_WRITEDATA, x);
        PREFER(CURLOPT_BUFFERSIZE, x->request->sink ? DOWNLOAD_BUFFER : 16L << 10);
        return 0;
}

static int set_url(struct exchange *x, CURL *easy)
{
        _cleanup_(freep) char *url = NULL;
        int r = url_of(x->http, x->request->path, &url);

        if (r < 0)
                return r;
        SET(CURLOPT_URL, url);
        return 0;
}

int exchange_init(struct exchange *x, struct http *h, const struct http_request *request,
                  struct http_reply *reply, struct lane *l, struct call *c)
{
        uint64_t max = request->size_max ? request->size_max : HTTP_BODY_MAX;
        int r;

        *x = (struct exchange){.http = h,
                               .request = request,
                               .reply = reply,
                               .easy = l->easy,
                               .taker = x->taker,
                               .is_tunnel = x->is_tunnel};
        http_reply_done(reply);
        reply->headers.max = HTTP_HEADERS_MAX;
        if (max >= SIZE_MAX) /* a stream without a limit; its error is in memory */
                max = HTTP_ERROR_BODY_MAX;
        reply->body.max = max > HTTP_ERROR_BODY_MAX ? (size_t)max : HTTP_ERROR_BODY_MAX;
        curl_easy_reset(l->easy);
        r = add_headers(x, c);
        if (r == -EINVAL)
                return r;
        r = r < 0 ? r : lane_setup(l);
        r = r < 0 ? r : easy_setup(h, l->easy);
        r = r < 0 ? r : set_callbacks(x, l->easy);
        r = r < 0 ? r : set_url(x, l->easy);
        if (r == -EINVAL)
                return http_fail(x, c, r, "a path that can't be sent");
        r = r < 0 ? r : set_request(x, l->easy);
        return r < 0 ? http_fail(x, c, r, "%s", strerrordesc_np(-r)) : 0;
}

void exchange_done(struct exchange *x)
{
        for (struct curl_slist *l = x->headers; l; l = l->next)
                explicit_bzero(l->data, strlen(l->data));
        curl_slist_free_all(x->headers);
        x->headers = NULL;
        curl_mime_free(x->mime);
        x->mime = NULL;
        secrets_done(&x->secrets);
}

/* ---- what became of it ---- */

void exchange_note(struct exchange *x)
{
        long size = 0;

        (void)curl_easy_getinfo(x->easy, CURLINFO_REQUEST_SIZE, &size);
        x->reply->was_sent = x->starts > 0 && size > 0; /* before, it's what a proxy was asked */
}

/*
 * A signature that is wrong comes as a handshake that failed. Two codes mean something else once it
 * was sent: libcurl runs "out of memory" at a header that is too long for it, and knows no
 * "protocol" that answers with nonsense.
 */
static int error_of(const struct exchange *x, CURLcode code)
{
        long verified = 0;

        if (code == CURLE_SSL_CONNECT_ERROR &&
            curl_easy_getinfo(x->easy, CURLINFO_SSL_VERIFYRESULT, &verified) == CURLE_OK &&
            verified != 0)
                return -EPERM;
        if (x->starts > 0 && (code == CURLE_OUT_OF_MEMORY || code == CURLE_UNSUPPORTED_PROTOCOL))
                return -EPROTO;
        if (code == CURLE_OPERATION_TIMEDOUT && !x->reply->was_sent)
                return -EHOSTUNREACH; /* it was connecting */
        return http_curl_error(code);
}

/* libcurl speaks of a port where it is a socket that can't be connected to. */
static void say_why(const struct exchange *x, CURLcode code, char *ret, size_t size)
{
        const char *socket_path = x->http->socket_path;
        long error = 0;

        if (code == CURLE_COULDNT_CONNECT && socket_path &&
            curl_easy_getinfo(x->easy, CURLINFO_OS_ERRNO, &error) == CURLE_OK && error > 0)
                (void)snprintf(ret, size, "%s: %s", socket_path, strerrordesc_np((int)error));
        else
                escape_text(x->why, strnlen(x->why, sizeof(x->why)), ret, size);
}

int exchange_result(struct exchange *x, CURLcode code, struct call *c)
{
        char why[CURL_ERROR_SIZE * 2];
        int error;

        exchange_note(x);
        error = error_of(x, code);
        if (code == CURLE_OK || x->is_complete)
                return 0;
        x->is_lost = x->starts > 1 || code == CURLE_SEND_FAIL_REWIND;
        if (x->error < 0)
                return http_fail(x, c, x->error, "%s",
                                 x->reason ? x->reason : strerrordesc_np(-x->error));
        if (x->reply->status >= 300 && !exchange_accepts(x)) {
                x->reply->is_cut = true; /* an error is an answer, whole or not */
                return 0;
        }
        if (x->is_lost)
                return http_fail(x, c, error, "the connection was closed before an answer came");
        if (code == CURLE_OUT_OF_MEMORY && error == -EPROTO)
                return http_fail(x, c, error, "the answer has a header that is too long");
        say_why(x, code, why, sizeof(why));
        return http_fail(x, c, error, "%s", why[0] ? why : curl_easy_strerror(code));
}
