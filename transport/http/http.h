/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 to one endpoint: a service's API, a daemon on a Unix socket, one sandbox's own server.
 * libcurl carries it, and only this folder knows libcurl.
 *
 *      struct http *h = NULL;
 *      struct http_config config = {.name = "docker", .socket_path = "/run/docker.sock"};
 *      _cleanup_(http_reply_done) struct http_reply reply = {0};
 *      struct http_request q = {.path = "/_ping"};
 *
 *      r = http_new(&config, c, &h);
 *      r = http_do(h, c, &q, &reply);
 *
 * Shape:   who asks drives its own request, on its own thread, over a connection from a pool: as
 *          many run at once as threads ask, sources and sinks are called by the thread that asked
 *          and may block (which is back-pressure), and nothing is handed from thread to thread.
 *          What lasts (event streams, upgraded connections: http_open, http_upgrade) is read by
 *          one further thread of the endpoint.
 * HTTP/2:  isn't spoken: a connection carries one request at a time.
 * Hostile: whatever the server sends. Headers, bodies, and how long it may take are bounded; what
 *          it says is foreign text in sentences; it can lead no request to another host.
 * Secrets: are in no sentence and no log line, also when the server sends them back, and wiped when
 *          freed.
 * Failure: an endpoint that was silent twice in a row is asked by nobody but a probe until it
 *          answers again; meanwhile every call fails at once, with -EHOSTUNREACH.
 * Threads: everything from any thread. The process ignores SIGPIPE.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/stream.h"

struct http; /* counted */
struct http_reply;
struct json;

#define HTTP_BODY_MAX ((uint64_t)16 << 20) /* of an answer in memory, unless a request says more */
#define HTTP_ERROR_BODY_MAX ((size_t)64 << 10) /* of an answer that is an error; the rest is cut */
#define HTTP_HEADERS_MAX ((size_t)64 << 10) /* of all of an answer's headers */
#define HTTP_SILENCE_NS (UINT64_C(10) * 1000000000)
#define HTTP_CONNECT_NS (UINT64_C(3) * 1000000000)
#define HTTP_TRIES 3

/* ---- an endpoint ---- */

struct http_header {
        const char *name;
        const char *value;
        bool is_secret; /* looked for in whatever is shown, and wiped */
};

/* Borrowed for the call. What is absent is NULL. */
struct http_config {
        const char *name; /* what sentences call it: "e2b" */
        /*
         * "https://api.example.com/v1": what stands before every path. Without user, query and
         * fragment. NULL with socket_path: "http://localhost".
         */
        const char *url;
        const char *socket_path; /* a Unix socket; no proxy, no TLS */
        /*
         * Plain http leads to nothing but this machine (127.0.0.0/8, ::1, localhost), a socket, or
         * the host of this name, which the operator has allowed.
         */
        const char *plain_host;
        const struct http_header *headers; /* sent with each request */
        size_t header_count;
        const char *user_agent; /* NULL: "sbxfs/VERSION" */
        /* TLS: always verified; by these authorities instead of the system's. PEM files. */
        const char *ca_file;
        const char *ca_dir;
        const char *cert_file, *key_file; /* who we are, both or none */
        const char *probe_path; /* what a probe GETs, any answer will do; NULL: "/" */
        /*
         * Reads the service's own error body, where our secrets are stars already: puts one sentence
         * into `text` (escaped afterwards) and returns the error, `error` unless the body says
         * better. NULL: message, error or detail of a JSON object, or the first line of plain text.
         */
        int (*explain)(const struct http_reply *reply, int error, char *text, size_t size);
};

/**
 * Local work only: nothing is connected.
 *
 * Errors: -EINVAL a URL, header or file that can't be; -EPERM plain http to another machine;
 *         -ENOMEM.
 */
int http_new(const struct http_config *config, struct call *c, struct http **ret);
struct http *http_ref(struct http *h);
/* The last one closes everything; streams hold one each. Never from an event. Accepts NULL. */
void http_unref(struct http *h);

/* Whether it answered last; if not, why. From memory. */
bool http_is_up(struct http *h, char *sentence, size_t size);

/*
 * The caller knows that it is back, or another now (resumed, restarted): it's asked again at once,
 * and by new connections.
 */
void http_renew(struct http *h);

/* ---- a request ---- */

#define HTTP_SIZE_UNKNOWN UINT64_MAX

/* A body that is read piece by piece. */
struct http_source {
        /*
         * Up to `size` bytes at `offset`, which only grows, but for a repeat (from 0): how many; 0
         * the end; -errno fails the request; -EAGAIN nothing yet, asked again within 10 ms.
         */
        ssize_t (*read)(struct http_source *from, void *data, size_t size, uint64_t offset);
        uint64_t size; /* or HTTP_SIZE_UNKNOWN: sent in chunks */
        bool is_once; /* can't be read again: no repeat once something was read */
};

/* Where the body of a 2xx goes; others are in the reply, whether accepted or not. */
struct http_sink {
        /* Before the first byte of an answer that was accepted. -errno ends it. NULL: not asked. */
        int (*begin)(struct http_sink *to, const struct http_reply *reply);
        /* 0 or -errno, which fails the request. May block. */
        int (*write)(struct http_sink *to, const void *data, size_t size);
        /* Forget what was written: it all comes again. NULL: no repeat once something was. */
        int (*rewind)(struct http_sink *to);
};

/* One part of multipart/form-data. */
struct http_part {
        const char *name;
        const char *file_name; /* NULL: none */
        const char *type; /* NULL: what the form of body implies */
        const void *data; /* where source is NULL */
        size_t size;
        struct http_source *source;
};

/* Bytes `offset` to offset + size - 1; size 0: to the end. */
struct http_range {
        uint64_t offset;
        uint64_t size;
};

/* Borrowed for the call. What is absent is NULL or 0. */
struct http_request {
        const char *method; /* NULL: GET */
        /* below the endpoint's URL; starts with '/', is escaped, may have a query (url.h) */
        const char *path;
        const struct http_header *headers;
        size_t header_count;

        /* One body at most. Without any, POST, PUT and PATCH send an empty one. */
        const void *data;
        size_t size;
        struct http_source *source;
        const struct http_part *parts;
        size_t part_count;
        const char *type; /* of data or source; NULL: application/json of data, else octet-stream */

        struct http_sink *sink; /* NULL: reply->body */
        /* Of the answer's body. 0: HTTP_BODY_MAX, or without limit into a sink */
        uint64_t size_max;
        /*
         * Only these bytes are handed on, whether or not the server knows ranges; 416 is an error
         * (-ERANGE) unless accepted.
         */
        const struct http_range *range;
        bool takes_gzip;

        unsigned accepts[6]; /* further statuses that are no error, as 404; zeros after the last */
        /*
         * It may safely run twice. GET and HEAD always. Others are repeated only when it is certain
         * that the server did nothing.
         */
        bool is_idempotent;
        /*
         * Times, beside the call's own deadline; NEVER_NS: only that one. Silence is that long
         * without a byte in either direction: 0 is HTTP_SILENCE_NS. All of it, with repeats: 0 is
         * HTTP_SILENCE_NS, but without limit with a source, a sink or a silence of NEVER_NS.
         */
        uint64_t silence_ns;
        uint64_t all_ns;
};

/* ---- an answer ---- */

/* {0} before its first use; used again, it forgets what it had. */
struct http_reply {
        unsigned status; /* 0: no answer came */
        /* A byte of the request may have reached the server; false: certainly nothing was done. */
        bool was_sent;
        bool is_cut; /* the error body was longer than what is here */
        struct buf headers; /* as they came, a line each; http_reply_header reads them */
        struct buf body; /* of an error always (secrets are stars); else where no sink was given */
};

void http_reply_done(struct http_reply *reply); /* wipes */
/* A header's value by its name in any case, the last one of several; NULL: none. Borrowed. */
const char *http_reply_header(const struct http_reply *reply, const char *name);

/**
 * Ask, and wait for the whole answer.
 *
 * Shape:  0 for 2xx and what the request accepts, with reply->status.
 * Errors: by status: -EACCES 401, -EDQUOT 402, -EPERM 403, -ENOENT 404, -EBUSY 409, -EAGAIN 429
 *         after repeats, -EINVAL 400 and 422, -EIO 5xx, ... (http_status_error), changed by
 *         explain; -EHOSTUNREACH no connection, or it was cut; -ETIMEDOUT; -EINTR; -EPROTO no HTTP,
 *         or more than size_max in memory; -EFBIG more than size_max into a sink; -EPERM the
 *         server's certificate is not to be trusted; a source's or a sink's own. The reply has what
 *         came.
 * Repeat: by itself, HTTP_TRIES in all, within the deadlines: idempotent calls after 429, 502, 503,
 *         504 or a lost connection; others after 429 or when nothing was sent.
 */
int http_do(struct http *h, struct call *c, const struct http_request *request,
            struct http_reply *reply);

/*
 * The same, with JSON in the answer: *ret to json_free; NULL where the body is empty. -EPROTO it is
 * none.
 */
int http_do_json(struct http *h, struct call *c, const struct http_request *request,
                 struct http_reply *reply, struct json **ret);

/* One of many. */
struct http_job {
        const struct http_request *request;
        struct http_reply reply; /* {0}; the caller's to free */
        int error; /* what http_do said */
        char sentence[256];
};

/**
 * Many requests at once, at most `at_once`; the others follow in their order.
 *
 * Returns: 0 when each has its result. -EINTR, -ETIMEDOUT: the call ended early; jobs that were not
 *          begun have that error, too, and !reply.was_sent. -ENOMEM: none was begun.
 * Threads: sources and sinks are called from other threads, one thread a job.
 */
int http_do_all(struct http *h, struct call *c, struct http_job *jobs, size_t count,
                unsigned at_once);

/* 0 for 2xx; else -errno. */
int http_status_error(unsigned status);

/* ---- what lasts ---- */

/**
 * A long answer, handed on as it comes: events, logs. Returns once its headers are there, with
 * reply->status; an error's body is in the reply.
 *
 * Shape:  a stream that can't be sent to (-EPIPE). Its end has no code; error 0: the server ended
 *         the body properly; else -EHOSTUNREACH cut off, -ETIMEDOUT silent for `idle_ns` (0:
 *         never), -EFBIG beyond request->size_max, -EPROTO. The request has no sink, no range.
 * Owner:  *ret to stream_close, which ends it at once. It holds a reference of `h`.
 * Repeat: as http_do, until the answer has begun.
 */
int http_open(struct http *h, struct call *c, const struct http_request *request, uint64_t idle_ns,
              const struct stream_events *events, struct http_reply *reply, struct stream **ret);

/**
 * Ask for another protocol on this connection ("tcp": bytes both ways), which 101 or 200 grants.
 *
 * Shape:  a stream of both directions; stream_send_eof closes ours only. Its end has no code;
 *         error 0: the server closed it; else -EHOSTUNREACH.
 * Owner:  as http_open. The request has no source, no parts, no sink.
 * Repeat: only when nothing was sent, or after 429.
 */
int http_upgrade(struct http *h, struct call *c, const struct http_request *request,
                 const char *protocol, const struct stream_events *events, struct http_reply *reply,
                 struct stream **ret);
