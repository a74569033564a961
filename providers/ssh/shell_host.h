/* SPDX-License-Identifier: Apache-2.0 */
/* What a host's pointer to its shell points to: shell.c's, and exec.c's way to its own. */
#pragma once

#include "transport/base/list.h"
#include "transport/base/lock.h"

struct exec_host;
struct ssh_host;

struct shell {
        /* fixed after init */
        struct ssh_host *host;
        struct exec_host *execs; /* exec_host.h */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct list helpers;
        unsigned helper_count; /* with those that are being opened */
};
