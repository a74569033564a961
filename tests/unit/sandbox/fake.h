/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A provider in this process, whose sandboxes outlive a fleet as a cloud's do. Tests say which of
 * its calls fail or hang, and drive its commands by hand; only `now CODE` ends by itself, before
 * exec_start has returned.
 *
 * Threads: all functions may be called from any thread. Sinks are called on the thread of who calls
 *          fake_exec_*.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/sandbox/fleet.h"
#include "providers/provider.h"

enum fake_op {
        FAKE_OPEN,
        FAKE_CREATE,
        FAKE_DESTROY,
        FAKE_LIST,
        FAKE_STATE,
        FAKE_ATTACH,
        FAKE_START,
        FAKE_STOP,
        FAKE_PAUSE,
        FAKE_RESUME,
        FAKE_EXEC_START,
        FAKE_EXEC_ATTACH,
        FAKE_EXEC_WRITE,
        FAKE_EXEC_SIGNAL,
        FAKE_OPS,
};

/* Forget everything; the table has every operation and `traits`. */
void fake_reset(uint32_t traits);
struct provider_ops *fake_ops(void); /* may be changed while no fleet is open */
const struct provider_ops *fake_find(const char *kind); /* for struct fleet_seams: "fake" */
int fake_open(const char *kind, const struct provider_config *config, struct call *c,
              struct provider **ret);

/*
 * The next `count` calls of this operation fail with `code` (-1: all from now on; 0: none). Returns
 * how many were begun before.
 */
unsigned fake_fail(enum fake_op op, int code, int count);
/* Creations that fail are certain that nothing was made. */
void fake_makes_nothing(bool on);
/* Calls of this operation wait: until told otherwise, cancelled, or their deadline. */
void fake_hang(enum fake_op op, bool on);
unsigned fake_calls(enum fake_op op); /* begun so far */
bool fake_was_cancelled(enum fake_op op); /* one that hung was */

/* ---- its sandboxes ---- */

unsigned fake_count(void); /* those that exist */
const char *fake_id(
        const char *name); /* of the one created under this name; "" none. Valid until fake_reset */
bool fake_exists(const char *id);
const char *fake_add(const char *name, bool is_listed); /* made by somebody else; its id */
void fake_set_state(const char *id, enum box_state state, const char *sentence); /* without news */
void fake_news(const char *id); /* box_changed */
unsigned fake_own_releases(void); /* boxes that were released within fake_news */
struct spec fake_spec(const char *id); /* as of its creation: numbers and flags only, no pointers */
const char *fake_text(const char *id, enum setting x); /* as of its creation; "" none */

/* ---- its commands ---- */

struct fake_exec;
struct fake_exec *fake_exec(const char *id, uint64_t number); /* NULL: never started */
const char *fake_exec_command(struct fake_exec *x); /* the last of argv */
const char *fake_exec_env(struct fake_exec *x, const char *key); /* NULL: not given */
uint64_t fake_exec_timeout_ns(struct fake_exec *x);
bool fake_exec_is_attached(struct fake_exec *x);
/* What it prints; kept for a later attach, and handed on if somebody is attached. */
void fake_exec_print(struct fake_exec *x, enum exec_stream stream, const void *data, size_t size);
/* Bytes that the service lost: the next output comes behind a gap. */
void fake_exec_skip(struct fake_exec *x, enum exec_stream stream, size_t size);
void fake_exec_end(struct fake_exec *x, enum exec_end_kind kind, int value);
void fake_exec_end_with(struct fake_exec *x, const struct exec_end *end);
void fake_exec_forget(struct fake_exec *x); /* exec_attach: -ENOENT */
void fake_exec_take(struct fake_exec *x, uint64_t total); /* stdin_taken */
size_t fake_exec_stdin(struct fake_exec *x, char *to, size_t size,
                       bool *ret_eof); /* all that came: its size */
unsigned fake_exec_signals(struct fake_exec *x, int *signals, unsigned count); /* how many came */
