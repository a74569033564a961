/* SPDX-License-Identifier: Apache-2.0 */
/* What the halves of fake.h's service share. */
#pragma once

#include <stdatomic.h>

#include "tests/unit/sandbox/fake.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

#define BOXES 256
#define EXECS 512
#define SIGNALS 8
#define ENV 16

struct fake_box {
        bool exists, is_listed;
        char id[32], key[32], name[NAME_SIZE];
        struct spec spec;
        char text[SETTING_COUNT][128];
        struct box_status status;
};

struct fake_exec {
        char box_id[128];
        uint64_t number;
        char command[256];
        struct pair env[ENV];
        size_t env_count;
        uint64_t timeout_ns;
        bool is_forgotten;
        struct {
                char *data;
                size_t size;
                uint64_t first; /* stream offset of data[0] */
        } log[2];
        bool has_ended;
        struct exec_end end;
        char *in;
        size_t in_size;
        bool has_eof;
        int signals[SIGNALS];
        unsigned signal_count;
        struct exec_sink *sink; /* who is attached */
        bool is_busy; /* the sink is being called */
};

struct fake_state {
        struct mutex lock;
        struct cond changed;
        bool is_set_up;
        struct provider_ops ops;
        struct provider_listener listener;
        int fail[FAKE_OPS], fail_count[FAKE_OPS];
        bool hangs[FAKE_OPS], was_cancelled[FAKE_OPS];
        bool makes_nothing;
        unsigned calls[FAKE_OPS];
        struct fake_box boxes[BOXES];
        unsigned box_count;
        struct fake_exec execs[EXECS];
        unsigned exec_count;
        atomic_uint own_releases;
};
extern struct fake_state fake_state;

/* Counts the call, waits as told; then 0 or what the call shall fail with. */
int fake_enter(enum fake_op op, struct call *c);

/* ---- fake_exec.c ---- */

int fake_op_exec_start(struct box *b, struct call *c, const struct exec_req *in,
                       struct exec_sink *to, struct exec **ret);
int fake_op_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                        const uint64_t have[2], struct exec_sink *to, struct exec **ret);
int fake_op_exec_write(struct exec *e, struct call *c, const void *data, size_t size, bool is_last);
int fake_op_exec_signal(struct exec *e, struct call *c, int signal);
void fake_op_exec_release(struct exec *e);
void fake_forget_execs_locked(void);
