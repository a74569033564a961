/* SPDX-License-Identifier: Apache-2.0 */
/* Sending files of the cached volume: what is refused, lost, or written in the meantime. */

#include "tests/unit/volume/content_support.h"

static void refused_change_stays_and_is_told(void)
{
        struct world w = {0};
        struct vol_file *f;

        if (!world_init(&w))
                return;
        f = create_at(&w, "a", O_WRONLY);
        CHECK_EQ(write_file(&w, f, "abc", 3, 0), 3);
        atomic_store(&w.box.change_error_kind, CHANGE_STORE);
        atomic_store(&w.box.change_error, -ENOSPC);
        CHECK_EQ(close_file(&w, f), -ENOSPC);
        CHECK_EQ(atomic_load(&w.box.failed_events), 1);
        CHECK(strncmp(w.box.last_failed, "a:", 2) == 0);
        CHECK_EQ(dirty_files(&w), 0);
        CHECK_STR(get(&w, "a"), "abc");
        CHECK_EQ(sync_all(&w), 0); /* it holds up nothing */
        CHECK_EQ(unsent(&w), 1);
        atomic_store(&w.box.change_error, 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(w.ops->retry(w.v), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_STR(real_get(&w, "a"), "abc");
        CHECK_EQ(dirty_files(&w), 0);
        world_done(&w);
}

static void host_away_and_back(void)
{
        struct world w = {0};

        if (!world_init(&w))
                return;
        CHECK(node_of(&w, "a") == 0);
        atomic_store(&w.box.enter_error, -EHOSTUNREACH);
        CHECK_EQ(put(&w, "a", "abc"), -EHOSTUNREACH);
        CHECK_EQ(dirty_files(&w), 1);
        CHECK_STR(get(&w, "a"), "abc");
        atomic_store(&w.box.enter_error, 0);
        for (int i = 0; i < 3000 && dirty_files(&w) > 0; i++)
                sleep_for_ms(10);
        CHECK_EQ(dirty_files(&w), 0);
        CHECK_STR(real_get(&w, "a"), "abc");
        CHECK_EQ(atomic_load(&w.box.failed_events), 0);
        world_done(&w);
}

static void lost_answer_is_repeated(void)
{
        struct world w = {0};

        if (!world_init(&w))
                return;
        real_put(&w, "a", "before", 6);
        atomic_store(&w.box.is_lost, true);
        CHECK(put(&w, "a", "after") < 0);
        CHECK_EQ(dirty_files(&w), 1);
        atomic_store(&w.box.is_lost, false);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "after");
        CHECK_STR(get(&w, "a"), "after");
        world_done(&w);
}

static void sync_sends_many_in_one_call(void)
{
        struct world w = {0};
        struct vol_file *f[50];
        char name[16];
        unsigned before;

        if (!world_init(&w))
                return;
        for (int i = 0; i < 50; i++) {
                (void)snprintf(name, sizeof(name), "f%d", i);
                f[i] = create_at(&w, name, O_WRONLY);
                CHECK_EQ(write_file(&w, f[i], name, strlen(name), 0), strlen(name));
        }
        before = calls(&w, FAKE_APPLY);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(calls(&w, FAKE_APPLY), before + 1);
        CHECK_EQ(dirty_files(&w), 0);
        for (int i = 0; i < 50; i++) {
                (void)snprintf(name, sizeof(name), "f%d", i);
                CHECK_STR(real_get(&w, name), name);
                CHECK_EQ(close_file(&w, f[i]), 0);
        }
        CHECK_EQ(calls(&w, FAKE_APPLY), before + 1);
        world_done(&w);
}

/* What is written while an upload is under way. */
static void write_in_hook(struct fake_box *b, enum fake_call call, const char *path, bool is_after)
{
        struct world *w = b->ctx;
        struct vol_file *f;

        (void)path;
        if (call != FAKE_APPLY || !is_after || !w->box.hook)
                return;
        w->box.hook = NULL;
        f = open_at(w, "a", O_WRONLY);
        if (CHECK(f)) {
                CHECK_EQ(write_file(w, f, "TWO", 3, 3), 3);
                w->ops->release(w->v, f);
        }
}

static void written_during_an_upload_is_sent_next(void)
{
        struct world w = {0};
        struct vol_file *f;

        if (!world_init(&w))
                return;
        f = create_at(&w, "a", O_WRONLY);
        CHECK_EQ(write_file(&w, f, "onetwo", 6, 0), 6);
        w.box.ctx = &w;
        w.box.hook = write_in_hook;
        CHECK_EQ(flush_file(&w, f), 0);
        CHECK_STR(get(&w, "a"), "oneTWO");
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "oneTWO");
        CHECK_EQ(dirty_files(&w), 0);
        world_done(&w);
}

static void open_file_of_a_gone_sandbox_is_stale(void)
{
        struct vol_entry e;
        struct vol_file *f;
        struct asking a;
        struct world w = {.is_journaled = true};
        uint64_t node;

        if (!world_init(&w))
                return;
        real_put(&w, "a", "text", 4);
        f = open_at(&w, "a", O_RDONLY);
        node = node_of(&w, "a");
        w.ops->gone(w.v);
        CHECK_EQ(w.ops->getattr(w.v, ask(&a, true), node, NULL, &e), -ESTALE);
        CHECK_EQ(w.ops->getattr(w.v, ask(&a, true), VOLUME_ROOT, NULL, &e), -ENODEV);
        CHECK_EQ(close_file(&w, f), -ESTALE);
        CHECK_EQ(w.ops->getattr(w.v, ask(&a, true), node, NULL, &e), -ENODEV);
        world_done(&w);
}

int main(void)
{
        RUN(open_file_of_a_gone_sandbox_is_stale);
        RUN(refused_change_stays_and_is_told);
        RUN(host_away_and_back);
        RUN(lost_answer_is_repeated);
        RUN(sync_sends_many_in_one_call);
        RUN(written_during_an_upload_is_sent_next);
        return check_result();
}
