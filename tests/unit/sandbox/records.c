/* SPDX-License-Identifier: Apache-2.0 */
/* What is on disk: sandboxes come back after a restart, and what is damaged is kept aside. */

#include <dirent.h>
#include <pthread.h>
#include <sys/stat.h>

#include "tests/unit/sandbox/world.h"
#include "transport/base/record.h"

/* The name of some sandbox's directory below sandboxes/; "" none. */
static void find_key(const char *suffix, char *to, size_t size)
{
        int fd = openat(world.dir, "sandboxes", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fdopendir(fd);
        const struct dirent *e;

        to[0] = '\0';
        if (!dir)
                abort();
        while ((e = readdir(dir)))
                if (e->d_name[0] != '.' && strcmp(strchrnul(e->d_name, '.'), suffix) == 0)
                        (void)snprintf(to, size, "%.60s", e->d_name);
        (void)closedir(dir);
}

static void write_file(const char *path, const char *text)
{
        int fd = openat(world.dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        if (!CHECK(fd >= 0))
                return;
        CHECK_EQ(file_write_all(fd, text, strlen(text)), 0);
        (void)close(fd);
}

static void all_of_a_sandbox_comes_back(void)
{
        char memory[] = "512M", k_memory[] = "memory", k_env[] = "env.A", v_env[] = "secret";
        char k_mount[] = "mount.0", v_mount[] = "/srv:/data:ro", k_label[] = "label.team";
        char v_label[] = "a=b c", k_cpu[] = "cpu", v_cpu[] = "1.5", k_dead[] = "create_timeout";
        char v_dead[] = "90s", k_ro[] = "readonly", v_ro[] = "off";
        const struct pair settings[] = {{k_memory, memory}, {k_env, v_env},     {k_mount, v_mount},
                                        {k_cpu, v_cpu},     {k_label, v_label}, {k_dead, v_dead},
                                        {k_ro, v_ro}};
        struct sandbox_info before, after;
        struct sandbox *sb;
        char key[64], path[128];
        struct buf text = BUF_INIT(100000);

        world_begin(0);
        world.config.allow = ALLOW_MOUNT;
        world_up();
        CHECK_EQ(try_create("web", settings, 7), 0);
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(is_settled(sb));
        CHECK_EQ(sandbox_set_timeout(sb, 7200 * NS_PER_S, &world.call), 0);
        CHECK_EQ(sandbox_set_env(sb, "TOKEN", "hush", &world.call), 0);
        CHECK_EQ(sandbox_protect(sb, true, &world.call), 0);
        sandbox_say_error(sb, -EIO, "a failure");
        CHECK_EQ(sandbox_set_label(sb, "x/y", "z", &world.call), 0);
        before = info_of(sb);
        CHECK_EQ(before.env, ENV_SET);
        sandbox_unref(sb);
        world_down();

        find_key("", key, sizeof(key));
        (void)snprintf(path, sizeof(path), "sandboxes/%s/record", key);
        CHECK_EQ(file_read(world.dir, path, &text), 0);
        CHECK(!strstr(buf_str(&text), "hush") && !strstr(buf_str(&text), "secret"));
        CHECK(strstr(buf_str(&text), "set.memory 512M"));
        CHECK(strstr(buf_str(&text), "set.cpu 1500m"));
        CHECK(strstr(buf_str(&text), "set.timeout 2h"));
        CHECK(strstr(buf_str(&text), "set.create_timeout 1m30s"));
        CHECK(strstr(buf_str(&text), "set.readonly off"));
        CHECK(strstr(buf_str(&text), "set.mount.0 /srv:/data:ro"));
        CHECK(strstr(buf_str(&text), "label team=a=b c"));
        CHECK(strstr(buf_str(&text), "label x/y=z"));
        buf_done(&text);

        world_up();
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(is_settled(sb));
        after = info_of(sb);
        CHECK_EQ(after.state, BOX_RUNNING);
        CHECK_STR(after.id, before.id);
        CHECK_STR(after.last_error, "a failure");
        CHECK_EQ(after.error_real_ns, before.error_real_ns);
        CHECK_EQ(after.created_real_ns, before.created_real_ns);
        CHECK_EQ(after.ready_ms, before.ready_ms);
        CHECK_EQ(after.env, ENV_LOST);
        CHECK(after.is_protected && !after.is_foreign);
        mutex_lock(&sb->lock);
        CHECK_EQ(sb->spec.timeout_ns, 7200 * NS_PER_S);
        CHECK_EQ(sb->spec.memory, UINT64_C(512) << 20);
        CHECK_EQ(sb->spec.cpu_milli, 1500);
        CHECK_EQ(sb->spec.mount_count, 1);
        CHECK(sb->spec.mounts[0].is_readonly);
        CHECK_STR(sb->spec.mounts[0].inside, "/data");
        CHECK_EQ(sb->spec.label_count, 2);
        CHECK_STR(sb->spec.labels[0].value, "a=b c");
        CHECK_EQ(sb->spec.env_count, 0);
        mutex_unlock(&sb->lock);
        CHECK_EQ(fake_calls(FAKE_CREATE), 1);
        sandbox_unref(sb);
        world_end();
}

static void serials_are_never_given_twice(void)
{
        uint64_t last = 0;

        world_begin(0);
        for (int i = 0; i < 2; i++) {
                char name[8];

                world_up();
                for (int k = 0; k < 3; k++) {
                        (void)snprintf(name, sizeof(name), "s%d%d", i, k);
                        CHECK_EQ(try_create(name, NULL, 0), 0);
                        CHECK(serial_of(name) > last);
                        last = serial_of(name);
                        CHECK_EQ(fleet_remove(world.fleet, name, &world.call), 0);
                        EVENTUALLY(!status_has(name));
                }
                world_down();
        }
        /* Without the file only the records know. */
        world_up();
        sandbox_unref(make("last"));
        last = serial_of("last");
        world_down();
        write_file("serial", "damaged");
        world_up();
        CHECK_EQ(serial_of("last"), last);
        sandbox_unref(make("next"));
        CHECK(serial_of("next") > last);
        world_end();
}

static void a_damaged_record_is_set_aside(void)
{
        char key[64], path[128];

        world_begin(0);
        world_up();
        sandbox_unref(make("web"));
        world_down();
        find_key("", key, sizeof(key));
        (void)snprintf(path, sizeof(path), "sandboxes/%s/record", key);
        write_file(path, "not a record");
        world_up();
        CHECK(!exists("web"));
        find_key(".damaged", path, sizeof(path));
        CHECK(strncmp(path, key, strlen(key)) == 0);
        CHECK(fake_exists("box-1")); /* nobody touched it */
        world_down();
        world_up(); /* and it stays aside */
        find_key(".damaged", path, sizeof(path));
        CHECK(path[0] != '\0');
        world_end();
}

static void what_has_no_record_is_cleared_away(void)
{
        char key[64];

        world_begin(0);
        world_up();
        world_down();
        CHECK_EQ(mkdirat(world.dir, "sandboxes/abc", 0700), 0);
        write_file("sandboxes/abc/cmd", "x");
        world_up();
        find_key("", key, sizeof(key));
        CHECK_STR(key, "");
        world_end();
}

static void two_of_one_name_are_both_there(void)
{
        char key[64], from[128];
        struct buf text = BUF_INIT(100000);

        world_begin(0);
        world_up();
        sandbox_unref(make("web"));
        world_down();
        find_key("", key, sizeof(key));
        (void)snprintf(from, sizeof(from), "sandboxes/%s/record", key);
        CHECK_EQ(file_read(world.dir, from, &text), 0);
        world_up();
        CHECK_EQ(fleet_rename(world.fleet, "web", "old", &world.call), 0);
        sandbox_unref(make("web"));
        world_down();
        write_file(from, buf_str(&text)); /* as if a crash had lost the rename */
        buf_done(&text);
        world_up();
        EVENTUALLY(state_of("web") == BOX_RUNNING && state_of("web.1") == BOX_RUNNING);
        world_end();
}

static void add_to_record(const char *path, const char *key, const char *value)
{
        struct buf text = BUF_INIT(100000);
        struct record *r = NULL;

        if (!CHECK_EQ(record_read(world.dir, path, &r), 0))
                return;
        CHECK_EQ(record_add(r, key, value), 0);
        CHECK_EQ(record_format(r, &text), 0);
        write_file(path, buf_str(&text));
        buf_done(&text);
        record_free(r);
}

static void a_creation_that_was_cut_short_is_found_or_made_again(void)
{
        char k_env[] = "env.A", v_env[] = "x";
        const struct pair env = {k_env, v_env};
        struct sandbox *sb;
        struct box_root root;
        char key[64], path[128];
        struct buf text = BUF_INIT(100000);

        /* Nothing was made: made now, under the same key. */
        world_begin(0);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        EVENTUALLY(fake_calls(FAKE_CREATE) == 1);
        /* A crash keeps the record of this moment. */
        find_key("", key, sizeof(key));
        (void)snprintf(path, sizeof(path), "sandboxes/%s/record", key);
        CHECK_EQ(file_read(world.dir, path, &text), 0);
        world_down_by(0);
        write_file(path, buf_str(&text));
        fake_hang(FAKE_CREATE, false);
        world_up();
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        CHECK_EQ(fake_count(), 1);
        CHECK_STR(fake_spec("box-1").key, key);
        world_down();

        /* It was made, but its id did not reach the record: found by its key. */
        write_file(path, buf_str(&text));
        world_up();
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        CHECK_EQ(fake_count(), 1);
        sb = fleet_find(world.fleet, "web");
        CHECK_STR(info_of(sb).id, "box-1");
        sandbox_unref(sb);
        world_down();

        /* The provider can't be asked just now: it is, later. */
        buf_done(&text);
        fake_fail(FAKE_ATTACH, -EHOSTUNREACH, 3);
        world_up();
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        EVENTUALLY(fake_calls(FAKE_ATTACH) >= 4);
        world_down();

        /* Until then it isn't gone. */
        fake_fail(FAKE_ATTACH, -EHOSTUNREACH, -1);
        world_up();
        EVENTUALLY(state_of("web") == BOX_UNKNOWN);
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(sandbox_root(sb, &world.call, &root) == -EHOSTUNREACH);
        CHECK(strstr(world.call.sentence, "operation"));
        CHECK(sandbox_root(sb, &world.call, &root) != -ENODEV);
        sandbox_unref(sb);
        fake_fail(FAKE_ATTACH, 0, 0);
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        world_end();

        /* Nothing was asked of the provider yet: it is now. */
        world_begin(0);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        EVENTUALLY(fake_calls(FAKE_CREATE) == 1);
        find_key("", key, sizeof(key));
        (void)snprintf(path, sizeof(path), "sandboxes/%s/record", key);
        text = BUF_INIT(100000);
        CHECK_EQ(file_read(world.dir, path, &text), 0);
        world_down_by(0);
        write_file(path, buf_str(&text));
        buf_done(&text);
        add_to_record(path, "not_made", "1"); /* as before it */
        fake_hang(FAKE_CREATE, false);
        world_up();
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        CHECK_EQ(fake_count(), 1);
        world_end();

        /* Its variables are not on disk, so it can't be made again. */
        world_begin(0);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", &env, 1), 0);
        EVENTUALLY(fake_calls(FAKE_CREATE) == 1);
        find_key("", key, sizeof(key));
        (void)snprintf(path, sizeof(path), "sandboxes/%s/record", key);
        text = BUF_INIT(100000);
        CHECK_EQ(file_read(world.dir, path, &text), 0);
        world_down_by(0);
        write_file(path, buf_str(&text));
        buf_done(&text);
        fake_hang(FAKE_CREATE, false);
        world_up();
        EVENTUALLY(state_of("web") == BOX_ERROR);
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(strstr(info_of(sb).last_error, "env.*"));
        sandbox_unref(sb);
        world_end();
}

static void still_failed(void)
{
        struct sandbox *sb = fleet_find(world.fleet, "web");

        EVENTUALLY(is_settled(sb));
        CHECK_EQ(sandbox_state(sb), BOX_ERROR);
        CHECK_STR(info_of(sb).last_error, "fake: operation 1 fails");
        CHECK_EQ(fake_calls(FAKE_CREATE), 1);
        sandbox_unref(sb);
}

static void a_failed_creation_stays_failed(void)
{
        unsigned asked;

        world_begin(0);
        world_up();
        fake_fail(FAKE_CREATE, -ENOSPC, 1);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        EVENTUALLY(has_result(fleet_results(world.fleet), world.seq, "error"));
        world_down();
        world_up();
        still_failed();

        /* Nor while its provider doesn't answer, or once it does again. */
        for (unsigned i = 0; i < 4; i++) {
                uint64_t seq = results_add(fleet_results(world.fleet), "-", "refresh");

                fake_fail(FAKE_LIST, -EIO, 1);
                fleet_refresh(world.fleet, seq);
                EVENTUALLY(has_result(fleet_results(world.fleet), seq, "error"));
        }
        still_failed();
        world_down();
        asked = fake_calls(FAKE_LIST);
        fake_fail(FAKE_LIST, -EHOSTUNREACH, -1);
        world_up();
        EVENTUALLY(fake_calls(FAKE_LIST) >= asked + 3);
        EVENTUALLY(status_has("provider fake down "));
        CHECK_EQ(state_of("web"), BOX_ERROR);
        asked = fake_fail(FAKE_LIST, 0, 0); /* the next one may be the last */
        EVENTUALLY(fake_calls(FAKE_LIST) > asked);
        still_failed();
        world_end();
}

static void what_made_nothing_is_looked_for_nowhere(void)
{
        world_begin(0);
        world_up();
        fake_makes_nothing(true);
        fake_fail(FAKE_CREATE, -EHOSTUNREACH, 1);
        fake_fail(FAKE_LIST, -EHOSTUNREACH, -1);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        EVENTUALLY(has_result(fleet_results(world.fleet), world.seq, "error"));
        world_down();
        world_up();
        still_failed();
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), 0);
        EVENTUALLY(!status_has("sandbox web"));
        CHECK_EQ(fake_calls(FAKE_LIST), 0);
        world_down();
        world_up();
        CHECK(!exists("web"));
        world_end();
}

static void without_its_provider_it_is_shown_and_left_alone(void)
{
        const char *const other = "other";
        struct sandbox *sb;
        struct call c;
        struct box_root root;

        world_begin(0);
        world_up();
        sandbox_unref(make("web"));
        world_down();
        world.section.instance = other;
        world.config.default_provider = other;
        world_up();
        EVENTUALLY(state_of("web") == BOX_UNKNOWN);
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(is_settled(sb));
        CHECK_STR(info_of(sb).provider, "fake");
        CHECK_EQ(sandbox_check(sb, SANDBOX_START, &world.call), -EHOSTUNREACH);
        CHECK_EQ(sandbox_check(sb, SANDBOX_DESTROY, &world.call), -EHOSTUNREACH);
        CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.text = "x"}, 0, &world.call),
                 -EHOSTUNREACH);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), -EHOSTUNREACH);
        CHECK_EQ(sandbox_set_timeout(sb, 3600 * NS_PER_S, &world.call), 0);
        call_init(&c, NEVER_NS);
        CHECK_EQ(sandbox_root(sb, &c, &root), -EHOSTUNREACH);
        sandbox_unref(sb);
        world_down();
        world.section.instance = world.config.default_provider = "fake";
        world_up();
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        world_end();
}

static void a_state_directory_has_one_mount(void)
{
        struct workers *workers;
        struct fleet *other = NULL;
        struct call c;

        world_begin(0);
        world_up();
        CHECK_EQ(workers_new((const unsigned[]){1, 1, 1}, &workers), 0);
        call_init(&c, NEVER_NS);
        CHECK_EQ(fleet_open(&world.config, &(struct listener){0}, workers, &c, &other), -EBUSY);
        CHECK(strstr(c.sentence, "in use by the mount on /nowhere"));
        CHECK(workers_free(workers, NEVER_NS));
        CHECK(!other);
        world_down();

        CHECK_EQ(fchmod(world.dir, 0777), 0);
        CHECK_EQ(world_try_up(), -EACCES);
        CHECK(workers_free(world.workers, NEVER_NS));
        CHECK_EQ(fchmod(world.dir, 0700), 0);
        write_file("owner", "nonsense");
        CHECK(world_try_up() < 0); /* never another owner id for what is there */
        CHECK(workers_free(world.workers, NEVER_NS));
        world_forget();
}

static void *drain(void *arg)
{
        struct world *old = arg;

        fleet_drain(old->fleet, clock_after(60 * NS_PER_S));
        CHECK(workers_free(old->workers, clock_after(60 * NS_PER_S)));
        fleet_close(old->fleet);
        return NULL;
}

static void a_mount_that_only_drains_makes_room(void)
{
        struct world old;
        pthread_t thread;

        world_begin(0);
        world.seams.destroy_retry_ns = 3600 * NS_PER_S;
        world_up();
        sandbox_unref(make("web"));
        fake_fail(FAKE_DESTROY, -EIO, 1);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), 0);
        EVENTUALLY(fake_calls(FAKE_DESTROY) == 1); /* it waits for its next try, for long */
        memcpy(&old, &world, sizeof(old));
        CHECK_EQ(pthread_create(&thread, NULL, drain, &old), 0);
        for (;;) { /* until it drains, it is in use */
                int r = world_try_up();

                if (r == 0)
                        break;
                CHECK_EQ(r, -EBUSY);
                CHECK(workers_free(world.workers, clock_after(60 * NS_PER_S)));
                (void)usleep(200);
        }
        CHECK_EQ(pthread_join(thread, NULL), 0);
        EVENTUALLY(!fake_exists("box-1"));
        world_end();
}

int main(void)
{
        RUN(all_of_a_sandbox_comes_back);
        RUN(serials_are_never_given_twice);
        RUN(a_damaged_record_is_set_aside);
        RUN(what_has_no_record_is_cleared_away);
        RUN(two_of_one_name_are_both_there);
        RUN(a_creation_that_was_cut_short_is_found_or_made_again);
        RUN(a_failed_creation_stays_failed);
        RUN(what_made_nothing_is_looked_for_nowhere);
        RUN(without_its_provider_it_is_shown_and_left_alone);
        RUN(a_state_directory_has_one_mount);
        RUN(a_mount_that_only_drains_makes_room);
        return check_result();
}
