/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command printed, on local disk: three files, stdout, stderr, and output with both as they
 * came. Each is made with its first byte, only grows, and stops at cap - 1 MiB; at the end a marker
 * and the last 1 MiB are appended.
 *
 *      stream:  0 .......... limit ........................ total
 *      file:    0 .......... limit [marker, if any is missing] the last 1 MiB
 *
 * `output` is written first and the stream second, and only then are the new sizes shown: what a
 * crash leaves in output beyond the streams was never seen, and is cut off. A failed write (ENOSPC)
 * stops all three files for good, as the cap does.
 *
 * Threads: one writer at a time (the provider's, then the one that carries out the end). Sizes may
 *          be read by any thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"

#define OUTPUT_FILES 3 /* indexed by enum task_file: stdout, stderr, output */
#define OUTPUT_TAIL ((size_t)1024 * 1024)

struct output_file {
        /* writer only */
        int fd; /* -1: not open */
        uint64_t size; /* of the file */
        uint64_t total; /* bytes that were to be written to it */
        char *tail; /* ring of what came after the file stopped; NULL: nothing did */
        size_t tail_at, tail_size;
        bool is_full; /* it stopped */
        /* any thread */
        _Atomic uint64_t shown; /* bytes that readers see */
};

struct output {
        int state_dir; /* borrowed */
        char path[96]; /* of the exec's directory, below state_dir */
        uint64_t limit; /* cap - OUTPUT_TAIL */
        struct output_file files[OUTPUT_FILES];
        uint64_t position[2]; /* writer only: the next byte of each stream */
        int64_t skew
                [2]; /* writer only: bytes missing in gaps, position - size: kept in the record */
        _Atomic uint64_t dropped[2];
};

void output_init(struct output *o, int state_dir, const char *path, uint64_t cap);
void output_done(struct output *o);

/*
 * Go on where a former run stopped; `skew` as that run recorded it. Cuts `output` to what was seen.
 */
void output_resume(struct output *o, const int64_t skew[2]);
/* The files of a command that has ended: sizes only. */
void output_load(struct output *o, const uint64_t dropped[2]);

/**
 * Bytes of one stream at `offset`; those that are known already are passed over.
 *
 * Returns 1 when a gap was found, which changed skew: the caller then saves it; else 0. Nothing
 * here fails: what can't be written is counted as dropped.
 */
int output_add(struct output *o, enum exec_stream stream, uint64_t offset, const void *data,
               size_t size);

/* The command has ended: markers and tails. `dropped` are bytes that the provider lost. */
void output_finish(struct output *o, const uint64_t dropped[2]);
void output_close(struct output *o);
/* Make durable what is there, of a command that has ended: waits for the disk. */
void output_sync(struct output *o);

uint64_t output_size(const struct output *o, unsigned file);
const char *output_file_name(unsigned file);
