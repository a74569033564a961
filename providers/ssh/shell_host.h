/* SPDX-License-Identifier: Apache-2.0 */
/* What a host's pointer to its shell points to: shell.c's, and exec.c's way to its own. */
#pragma once

#include <stdint.h>

#include "transport/base/list.h"
#include "transport/base/lock.h"

struct exec_host;
struct ssh_host;

enum helper_kind { HELPER_SCRIPTS, HELPER_STREAMS };
#define HELPER_KINDS 2

struct shell {
        /* fixed after init */
        struct ssh_host *host;
        struct exec_host *execs; /* exec_host.h */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct list helpers[HELPER_KINDS];
        unsigned helper_count[HELPER_KINDS]; /* with those that are being opened */
        uint64_t no_streams_ns; /* until then no helper for streams is tried */
};
