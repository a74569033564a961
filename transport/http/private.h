/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of transport/http: who asks takes a lane (a libcurl multi handle with its kept
 * connection), makes an exchange (one request on its way, once), drives it to its end, and gives
 * the lane back. do.c repeats.
 */
#pragma once

#include <curl/curl.h>
#include <openssl/types.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/http/breaker.h"
#include "transport/http/http.h"
#include "transport/http/secret.h"

struct loop;

struct http {
        atomic_uint refs;
        /* fixed after init */
        char *name;
        char *url; /* without a '/' at its end */
        char *socket_path;
        char *user_agent;
        char *ca_file, *ca_dir, *cert_file, *key_file;
        char *probe_path;
        char **headers; /* "Name: value", all of them secret to us */
        size_t header_count;
        struct secrets secrets;
        bool is_local; /* no proxy */
        int (*explain)(const struct http_reply *reply, int error, char *text, size_t size);
        CURLSH *share; /* names and TLS sessions */
        struct mutex share_locks[CURL_LOCK_DATA_LAST];
        struct breaker breaker;
        struct mutex lock;
        /* guarded by lock */
        struct list lanes; /* idle ones, the latest first */
        size_t lane_count;
        struct loop *loop; /* NULL until something lasts */
};

/* ---- lanes: lane.c */

#define LANE_SOCKETS 4 /* while it connects, to several addresses at once */

struct lane {
        struct list link;
        CURLM *multi;
        CURL *easy;
        uint64_t idle_ns; /* since when */
        int sockets[LANE_SOCKETS]; /* -1: none. One while it is connected */
};

struct lane *lane_get(struct http *h); /* NULL: out of memory */
struct lane *lane_new(void); /* without a connection */
void lane_put(struct http *h, struct lane *l);
int lane_setup(struct lane *l); /* after a reset of its easy handle */
int lane_socket(const struct lane *l); /* where it is connected; -1 nowhere */
void lane_free(struct lane *l); /* accepts NULL */
void lanes_drop(struct http *h); /* the idle ones */

/* ---- one request on its way: exchange.c */

struct exchange {
        struct http *http;
        const struct http_request *request;
        struct http_reply *reply;
        CURL *easy;
        struct curl_slist *headers;
        curl_mime *mime;
        struct secrets secrets; /* of the request's own headers */
        char why[CURL_ERROR_SIZE]; /* libcurl's words */

        /* the body that goes out */
        uint64_t sent;
        bool is_waiting; /* the source had nothing yet */
        bool has_read; /* something was taken from the source */
        /* the one that comes in */
        uint64_t skip, left; /* of a range: bytes to pass over, then to hand on */
        uint64_t got; /* handed on */
        bool has_begun; /* the sink was told */
        bool is_complete; /* all of the range is there: the rest isn't wanted */

        unsigned starts; /* how often libcurl was about to send it */
        bool is_lost; /* a kept connection was dead: libcurl wanted to send it again */
        unsigned header_lines;
        uint64_t moved; /* bytes in both directions when last looked at */
        int error; /* of a callback: why it ended the exchange */
        const char *reason; /* a sentence for it, or NULL */

        /* who takes an accepted body instead of reply and sink, as libcurl's write callback */
        size_t (*taker)(struct exchange *x, const char *data, size_t size);
        bool has_headers; /* of an answer that is accepted: all of them */
        bool is_tunnel; /* only connects */
        SSL *ssl; /* of a tunnel's connection; NULL: it's plain */
        bool is_taken; /* the reply is the caller's now: nothing more goes there */
};

/* Prepares the lane's handle. 0 or -errno with a sentence in `c`. */
int exchange_init(struct exchange *x, struct http *h, const struct http_request *request,
                  struct http_reply *reply, struct lane *l, struct call *c);
void exchange_done(struct exchange *x);
/* What became of it: 0 when an answer came, whatever its status; else -errno and the sentence. */
int exchange_result(struct exchange *x, CURLcode code, struct call *c);
/* Whether anything was sent, into the reply. */
void exchange_note(struct exchange *x);
/* libcurl's callbacks, with the exchange as their last argument: incoming.c */
size_t exchange_on_header(char *line, size_t one, size_t count, void *ctx);
size_t exchange_on_body(char *bytes, size_t one, size_t count, void *ctx);
bool exchange_accepts(const struct exchange *x);
const char *request_method(const struct http_request *q);
bool request_is_idempotent(const struct http_request *q);
/* Bytes that moved so far, in both directions. */
uint64_t exchange_moved(const struct exchange *x);

/* Star out secrets in an answer that is an error, before anybody explains, shows or cuts it. */
void exchange_hide_answer(struct exchange *x);
/* call_fail with who and what before it, secrets starred out. Returns `error`. */
int http_fail(const struct exchange *x, struct call *c, int error, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
/* The answer's status is no success: its sentence. */
int http_fail_status(struct exchange *x, struct call *c);

/* ---- reply.c */

int reply_add_header(struct http_reply *reply, const char *line, size_t size);
/* "Name: value" by turns, from *cursor = 0; NULL at the end. */
const char *reply_next_header(const struct http_reply *reply, size_t *cursor);

/* ---- status.c */

int http_curl_error(CURLcode code);
int http_explain(const struct http_reply *reply, int error, char *text, size_t size);

/* ---- http.c: what every handle has, whoever asks with it */

int easy_setup(const struct http *h, CURL *easy);
/* -EINVAL: the path can't be sent. */
int url_of(const struct http *h, const char *path, char **ret);
bool header_is_valid(const struct http_header *header);
char *header_line(const struct http_header *header); /* as libcurl wants it; NULL: out of memory */

/* ---- do.c */

struct limits;

/*
 * One request with its repeats; `x` keeps what stays the same from try to try (request, reply,
 * taker). With a taker it returns as soon as the answer's headers are there: *ret_lane is still
 * carrying it, *ret_code says whether it's over; x is to be done by the caller.
 */
int http_drive(struct exchange *x, struct call *c, struct lane **ret_lane, CURLcode *ret_code);

/* A tunnel's: one try to connect. *ret is a lane of its own, to be freed before x is done. */
int http_connect(struct exchange *x, struct limits *limits, struct lane **ret, struct call *c);
/* What became of a try is no answer for the caller: true after waiting, it is to be done again. */
bool exchange_waits_to_repeat(struct exchange *x, int r, unsigned tries,
                              const struct limits *limits, const struct call *c);

/* One try, whatever the breaker says; 0: something answered. */
int http_probe(struct http *h, struct call *c, const struct http_request *q);
