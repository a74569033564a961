/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of fs/mount/ share, and they alone: one mount, from session_new to session_free.
 *
 *      loop      reads requests from /dev/fuse and serves them, one short function of ops.c each
 *      park      requests that wait: for a key, a time, or a worker
 *      inval     what tells the kernel to forget, and about which nodes not now
 *      files     what is open
 *      pollers   who sleeps in poll(2)
 */
#pragma once

#define FUSE_USE_VERSION 312

#include <fuse3/fuse_lowlevel.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/mount/wakes.h"

struct files;
struct inval;
struct loop;
struct park;
struct passthrough;
struct pollers;
struct tree;

#define MOUNT_IO_MAX ((size_t)1024 * 1024) /* bytes of one read or write */

struct mount {
        /* fixed before the loop starts */
        struct tree *tree;
        struct fuse_session *fuse;
        struct loop *loop;
        struct park *park;
        struct inval *inval;
        struct files *files;
        struct pollers *pollers;
        struct passthrough *passthrough;

        struct wakes wakes;

        /* the one thread that serves INIT, before all other requests */
        uint64_t init_unique; /* 0: none yet */
        atomic_bool is_agreed; /* INIT was answered */
};
