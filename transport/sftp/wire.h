/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of SFTP version 3: requests written, packets found in a stream, answers read. Pure: no
 * I/O, no locks. Everything that comes in is hostile; what doesn't fit to the byte is -EPROTO.
 *
 * Source: draft-ietf-secsh-filexfer-02; OpenSSH's PROTOCOL, section 4 (extensions, and SYMLINK's
 *         arguments, which it has the other way round).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "transport/base/buf.h"
#include "transport/sftp/sftp.h"

enum wire_kind {
        WIRE_INIT = 1,
        WIRE_VERSION = 2,
        WIRE_OPEN = 3,
        WIRE_CLOSE = 4,
        WIRE_READ = 5,
        WIRE_WRITE = 6,
        WIRE_LSTAT = 7,
        WIRE_FSTAT = 8,
        WIRE_SETSTAT = 9,
        WIRE_FSETSTAT = 10,
        WIRE_OPENDIR = 11,
        WIRE_READDIR = 12,
        WIRE_REMOVE = 13,
        WIRE_MKDIR = 14,
        WIRE_RMDIR = 15,
        WIRE_REALPATH = 16,
        WIRE_STAT = 17,
        WIRE_RENAME = 18,
        WIRE_READLINK = 19,
        WIRE_SYMLINK = 20,
        WIRE_STATUS = 101,
        WIRE_HANDLE = 102,
        WIRE_DATA = 103,
        WIRE_NAME = 104,
        WIRE_ATTRS = 105,
        WIRE_EXTENDED = 200,
        WIRE_EXTENDED_REPLY = 201,
};

enum wire_status {
        WIRE_OK = 0,
        WIRE_EOF = 1,
        WIRE_FAILURE = 4,
};

#define WIRE_PACKET_MAX (256u * 1024) /* of a packet that comes, without its length */
#define WIRE_PATH_MAX 4095
#define WIRE_PIECE_MAX (64u * 1024) /* data of a READ or WRITE */
#define WIRE_LIMITS 1000 /* beside enum sftp_type: limits@openssh.com */

/* ---- requests ---- */

int wire_add_init(struct buf *to);
/**
 * Append a request; of WRITE all but its data, which are to follow.
 *
 * Errors: -EINVAL no such request; -ENAMETOOLONG; -ENOMEM, -E2BIG. Nothing was appended then.
 */
int wire_add_op(struct buf *to, uint32_t id, const struct sftp_op *op);
int wire_add_limits(struct buf *to, uint32_t id);

/* ---- packets out of a stream ---- */

/* What of a packet has come so far. */
struct wire_in {
        struct buf part;
        bool is_given; /* `part` is a whole packet, and was handed out */
};

void wire_in_init(struct wire_in *in);
void wire_in_done(struct wire_in *in);
/*
 * Take bytes from *data: 1 and a packet (without its length), borrowed until the next call; 0 when
 * all was taken; -EPROTO a length that can't be; -ENOMEM.
 */
int wire_in_next(struct wire_in *in, const unsigned char **data, size_t *size,
                 const unsigned char **ret, size_t *ret_size);

/* ---- answers ---- */

struct wire_bytes {
        const unsigned char *data;
        size_t size;
};

struct wire_answer {
        enum wire_kind kind;
        uint32_t id;
        uint32_t status; /* STATUS */
        struct wire_bytes bytes; /* HANDLE, DATA; NAME: its entries; EXTENDED_REPLY */
        uint32_t count; /* NAME */
        struct stat st; /* ATTRS */
};

/* 0 or -EPROTO. Borrows from the packet. All of NAME's entries were looked at. */
int wire_read_answer(const unsigned char *packet, size_t size, struct wire_answer *ret);

/* VERSION: its number and enum sftp_feature. */
int wire_read_version(const unsigned char *packet, size_t size, uint32_t *ret_version,
                      unsigned *ret_features);

/* The next entry of NAME's bytes; false at the end. Both texts may hold anything. */
bool wire_next_name(struct wire_bytes *left, struct wire_bytes *ret_name, struct stat *ret_st);

/* The bodies of two EXTENDED_REPLY. 0 or -EPROTO. */
int wire_read_statvfs(struct wire_bytes body, struct statvfs *ret);
struct wire_limits {
        uint64_t packet, read, write, handles; /* 0: none told */
};
int wire_read_limits(struct wire_bytes body, struct wire_limits *ret);

/**
 * Fill in what came of an operation from its answer; op->buffer has room for op->size.
 *
 * Errors: -EPROTO the answer belongs to no such operation; -ENOMEM as op->error only.
 */
int wire_take(struct sftp_op *op, const struct wire_answer *a);

/* Whether an answer of this kind belongs to such an operation, for one that nobody waits for. */
bool wire_fits(unsigned type, enum wire_kind kind);

/* 0 or -errno. */
int wire_errno(uint32_t status);

/* Whether a name is one component: see struct sftp_name. */
bool wire_name_is_good(struct wire_bytes name);
