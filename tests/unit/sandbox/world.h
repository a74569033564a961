/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sandboxes without a mount: a fleet on the fake provider, in a temporary state directory.
 * world_down and world_up again is a restart; world_end forgets all.
 */
#pragma once

#include <errno.h>

#include "fs/sandbox/fleet.h"
#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "fs/sandbox/sandbox.h"
#include "tests/unit/base/temp.h"
#include "tests/unit/check.h"
#include "tests/unit/sandbox/fake.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/base/worker.h"

/* Whether it comes true: nothing passes by being quick, and nothing fails by being slow. */
#define EVENTUALLY(condition)                                                                      \
        ({                                                                                         \
                uint64_t until_ = clock_after(20 * NS_PER_S);                                      \
                bool is_so_;                                                                       \
                while (!(is_so_ = (condition)) && clock_mono_ns() < until_)                        \
                        (void)usleep(200);                                                         \
                check_bool(is_so_, #condition, __FILE__, __LINE__);                                \
        })

static struct world {
        int dir;
        struct workers *workers;
        struct fleet *fleet;
        struct fleet_config config;
        struct fleet_seams seams;
        struct fleet_section section;
        struct call call;
        atomic_uint gone, early; /* sandbox_gone; ends that could be seen too early */
        atomic_uint delivered; /* calls of the listener */
        atomic_int deliver_code; /* what `deliver` answers */
        atomic_bool deliver_waits; /* with that */
        atomic_uint unsent, retried; /* what is refused; calls of `retry`, which takes one away */
        uint64_t seq;
} world;

static inline void on_ending(void *ctx, struct sandbox *sb, struct task *t)
{
        struct task_info info;

        (void)ctx;
        (void)sb;
        task_get(t, &info);
        if (task_has_ended(t) || info.exit[0] || info.state == TASK_ENDED)
                atomic_fetch_add(&world.early, 1);
}

static inline void on_gone(void *ctx, struct sandbox *sb)
{
        (void)ctx;
        if (sandbox_state(sb) == BOX_GONE)
                atomic_fetch_add(&world.gone, 1);
}

static inline int on_deliver(void *ctx, struct sandbox *sb, struct call *c)
{
        int r = atomic_load(&world.deliver_code);

        (void)ctx;
        atomic_fetch_add(&world.delivered, 1);
        while (atomic_load(&world.deliver_waits))
                (void)usleep(200);
        if (r < 0)
                return call_fail(c, r, "no way there");
        sandbox_set_dirty(sb, sandbox_dirty_turn(sb), 0, 0, atomic_load(&world.unsent));
        return 0;
}

static inline int on_check_unsent(void *ctx, struct sandbox *sb, struct call *c)
{
        (void)ctx;
        (void)sb;
        return atomic_load(&world.unsent) ? call_fail(c, -ECANCELED, "unsent a/b: no") : 0;
}

static inline int on_retry(void *ctx, struct sandbox *sb, struct call *c)
{
        (void)ctx;
        (void)c;
        atomic_fetch_add(&world.retried, 1);
        if (atomic_load(&world.unsent) > 0)
                atomic_fetch_sub(&world.unsent, 1);
        sandbox_set_dirty(sb, sandbox_dirty_turn(sb), 0, 0, atomic_load(&world.unsent));
        return 0;
}

/* Nothing is due soon but what a test shortens. */
static inline void world_begin(uint32_t traits)
{
        log_setup(getenv("UNIT_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, NULL, false);
        world = (struct world){.dir = temp_open()};
        fake_reset(traits);
        world.seams = (struct fleet_seams){
                .find = fake_find,
                .open = fake_open,
                .destroy_retry_ns = NS_PER_MS,
                .attach_retry_ns = NS_PER_MS,
                .kill_grace_ns = NS_PER_MS,
                .sync_delay_ns = NS_PER_MS,
                .lost_grace_ns = NS_PER_MS,
                .poll_fast_ns = 3600 * NS_PER_S,
                .poll_slow_ns = 3600 * NS_PER_S,
        };
        world.section = (struct fleet_section){.instance = "fake", .kind = "fake"};
        world.config = (struct fleet_config){
                .state_path = temp_path,
                .default_provider = "fake",
                .sections = &world.section,
                .section_count = 1,
                .max_sandboxes = 64,
                .output_cap = 4 * 1024 * 1024,
                .mountpoint = "/nowhere",
                .seams = &world.seams,
        };
}

static inline int world_try_up(void)
{
        const struct listener listener = {
                .task_ending = on_ending,
                .deliver = on_deliver,
                .check_unsent = on_check_unsent,
                .retry = on_retry,
                .sandbox_gone = on_gone,
        };

        call_init(&world.call, NEVER_NS);
        CHECK_EQ(workers_new((const unsigned[]){8, 8, 1}, &world.workers), 0);
        return fleet_open(&world.config, &listener, world.workers, &world.call, &world.fleet);
}

static inline void world_up(void)
{
        if (!CHECK_EQ(world_try_up(), 0))
                abort();
}

static inline void world_down_by(uint64_t deadline_ns)
{
        fleet_drain(world.fleet, deadline_ns);
        CHECK(workers_free(world.workers, clock_after(60 * NS_PER_S)));
        fleet_close(world.fleet);
        world.fleet = NULL;
        CHECK_EQ(atomic_load(&world.early), 0);
}

static inline void world_down(void)
{
        world_down_by(clock_after(60 * NS_PER_S));
}

static inline void world_forget(void)
{
        temp_close(world.dir);
        fake_reset(0);
}

static inline void world_end(void)
{
        world_down_by(0);
        world_forget();
}

/* ---- sandboxes ---- */

static inline int try_create(const char *name, const struct pair *settings, size_t count)
{
        const struct create_options o = {
                .name = name, .settings = settings, .setting_count = count};

        world.seq = results_add(fleet_results(world.fleet), name, "create");
        return fleet_create(world.fleet, &o, world.seq, &world.call, NULL);
}

/* Its serial: stays when the name goes. */
static inline uint64_t serial_of(const char *name)
{
        struct sandbox *sb = fleet_find(world.fleet, name);
        uint64_t serial = sb ? sandbox_serial(sb) : 0;

        sandbox_unref(sb);
        return serial;
}

static inline bool exists(const char *name)
{
        return serial_of(name) != 0;
}

static inline enum box_state state_of(const char *name)
{
        struct sandbox *sb = fleet_find(world.fleet, name);
        enum box_state state = sb ? sandbox_state(sb) : BOX_GONE;

        sandbox_unref(sb);
        return state;
}

static inline struct sandbox_info info_of(struct sandbox *sb)
{
        struct sandbox_info info;

        sandbox_get(sb, &info);
        return info;
}

static inline bool is_settled(struct sandbox *sb)
{
        bool is;

        mutex_lock(&sb->lock);
        is = sb->current == JOB_NONE && list_is_empty(&sb->jobs);
        mutex_unlock(&sb->lock);
        return is;
}

/* A reference to a new one that runs, and has nothing to do: a poll beside a job is void. */
static inline struct sandbox *make(const char *name)
{
        struct sandbox *sb;

        CHECK_EQ(try_create(name, NULL, 0), 0);
        EVENTUALLY(state_of(name) == BOX_RUNNING);
        sb = fleet_find(world.fleet, name);
        if (!CHECK(sb))
                abort();
        EVENTUALLY(is_settled(sb));
        return sb;
}

/* Whether the results' line number `seq` says this. */
static inline bool has_result(struct results *results, uint64_t seq, const char *word)
{
        struct buf text = BUF_INIT(1024 * 1024);
        char want[64];
        bool has;

        CHECK_EQ(results_print(results, &text), 0);
        (void)snprintf(want, sizeof(want), "%llu %s ", (unsigned long long)seq, word);
        has = strncmp(buf_str(&text), want, strlen(want)) == 0;
        (void)snprintf(want, sizeof(want), "\n%llu %s ", (unsigned long long)seq, word);
        has |= strstr(buf_str(&text), want) != NULL;
        buf_done(&text);
        return has;
}

/* The verb was accepted: the number of its result. */
static inline uint64_t begin_verb(struct sandbox *sb, enum sandbox_verb verb)
{
        uint64_t seq = results_add(sandbox_results(sb), "-", "verb");

        CHECK_EQ(sandbox_check(sb, verb, &world.call), 0);
        sandbox_do(sb, verb, seq);
        return seq;
}

static inline bool is_done(struct sandbox *sb, uint64_t seq)
{
        return !has_result(sandbox_results(sb), seq, "pending");
}

/* Carried out, well or not. */
static inline bool verb_ok(struct sandbox *sb, enum sandbox_verb verb)
{
        uint64_t seq = begin_verb(sb, verb);

        EVENTUALLY(is_done(sb, seq) && is_settled(sb));
        return has_result(sandbox_results(sb), seq, "ok");
}

static inline bool status_has(const char *line)
{
        struct buf text = BUF_INIT(1024 * 1024);
        bool has;

        CHECK_EQ(fleet_print_status(world.fleet, &text), 0);
        has = strstr(buf_str(&text), line) != NULL;
        buf_done(&text);
        return has;
}

/* ---- commands ---- */

static inline struct task *run_with(struct sandbox *sb, const struct task_options *o)
{
        struct task *t = NULL;
        int r = sandbox_check_exec(sb, o, 0, &world.call);

        if (r == 0)
                r = sandbox_exec(sb, o, results_add(sandbox_results(sb), "-", "exec"), &world.call,
                                 &t);
        if (!CHECK_EQ(r, 0)) {
                (void)fprintf(stderr, "%s\n", world.call.sentence);
                abort();
        }
        return t;
}

static inline struct task *run(struct sandbox *sb, const char *text)
{
        return run_with(sb, &(struct task_options){.text = text});
}

static inline enum task_state task_state_of(struct task *t)
{
        struct task_info info;

        task_get(t, &info);
        return info.state;
}

/* The fake's side of a command, once it runs. */
static inline struct fake_exec *running(struct sandbox *sb, struct task *t)
{
        struct sandbox_info info;
        struct fake_exec *x;

        EVENTUALLY(task_state_of(t) == TASK_RUNNING);
        info = info_of(sb);
        x = fake_exec(info.id, task_number(t));
        if (!CHECK(x))
                abort();
        return x;
}

/* Waits for the end. */
static inline struct task_info ended(struct task *t)
{
        struct task_info info;

        EVENTUALLY(task_has_ended(t));
        task_get(t, &info);
        return info;
}

/* All of a file, as text; to be freed. */
static inline char *text_of(struct task *t, enum task_file file)
{
        size_t size = (size_t)task_size(t, file);
        char *text = calloc(1, size + 1);

        if (!text)
                abort();
        CHECK_EQ(task_read(t, file, text, size + 1, 0), (ssize_t)size);
        return text;
}

#define CHECK_FILE(t, file, expected)                                                              \
        do {                                                                                       \
                char *text_ = text_of((t), (file));                                                \
                CHECK_STR(text_, (expected));                                                      \
                free(text_);                                                                       \
        } while (0)
