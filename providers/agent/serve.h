/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: a small static program that is put into a sandbox and serves its working directory
 * over its standard input and output, as wire.h says. It has the powers of the user that started
 * it, and no more; it ends with its input. One thread: requests are carried out in their order.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/agent/wire.h"
#include "transport/base/buf.h"
#include "transport/base/list.h"

/* A frame that came. */
struct serve_frame {
        struct list link;
        struct wire_head head;
        unsigned char data[];
};

struct serve_conn {
        int in, out;
        struct buf unread; /* of `in`, not a whole frame yet */
        size_t unread_at;
        size_t coming; /* bytes of a DATA whose head was taken */
        struct list waiting; /* frames that came while another operation was at work */
        size_t waiting_bytes;
        struct buf unsent;
        /* of the operation at work */
        uint32_t id;
        size_t window; /* bytes that may be sent of its answer */
        bool is_cancelled;
};

void serve_conn_init(struct serve_conn *k, int in, int out);
void serve_conn_done(struct serve_conn *k);
/* From now on this socket is input and output; it stays the caller's. -errno: nothing has changed. */
int serve_conn_move(struct serve_conn *k, int fd);
/* What is unsent goes now. -errno: no more will go. */
int serve_conn_flush(struct serve_conn *k);

/* The next request, to free. -EPIPE the end of input; -errno: no more will come. */
int serve_next(struct serve_conn *k, struct serve_frame **ret);
/*
 * The next DATA, ABORT or WRITTEN of the operation at work; NULL: DATA, whose k->coming bytes are to be taken
 * before anything else is done. -ECANCELED it was cancelled.
 */
int serve_next_data(struct serve_conn *k, struct serve_frame **ret);
/* Up to k->coming bytes of it; to NULL: they are dropped. */
int serve_take_data(struct serve_conn *k, void *to, size_t size);

/* Something is to be told about the operation at work: into k->unsent. */
void serve_begin(struct serve_conn *k, struct wire_out *o, enum wire_type type);
/* Counts against the window, and waits for it. -ECANCELED; -errno the connection. */
int serve_end(struct serve_conn *k, struct wire_out *o);
/* The same of READ's data and ends: they don't wait. */
int serve_end_now(struct serve_conn *k, struct wire_out *o);
/* DONE with nothing but an errno; `r` is 0 or -errno. */
int serve_done(struct serve_conn *k, int r);

/* Serve the directory at this absolute path until the input ends. The exit code. */
int serve_files(struct serve_conn *k, const char *root);

/* serve_change.c: carry out one CHANGE, or HELD, of `place`, and tell. -errno the connection. */
struct place;
int serve_change(struct serve_conn *conn, const struct place *p, const struct serve_frame *f);
