/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives one provider through provider.h, for tests/providers/test_conform.py: each line of
 * standard input is a JSON object (`id`, `op` and arguments), each is carried out in a thread of
 * its own and answered by one line with the same id. Output of commands goes to files
 * OUT/<box>.<number>.{0,1,both}: what was received is known even after kill -9 of this program.
 *
 *      conform KIND STATE_DIR OUT_DIR HELPER_DIR OWNER ALLOW [KEY=VALUE ...]
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/providers/conform_files.h"
#include "providers/provider.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/base/json.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"

#define LINE_MAX_SIZE (64u << 20)
#define CALL_NS (30 * NS_PER_S)

struct known_box {
        struct list link;
        char id[128];
        struct box *box;
};

struct run {
        struct list link;
        struct exec_sink sink;
        char box[128];
        uint64_t number;
        struct exec *exec; /* guarded by lock; so is what follows */
        int fd[3]; /* hub thread only */
        uint64_t have[2], gaps[2], taken;
        unsigned outputs, ends;
        uint64_t ended_ns;
        struct exec_end end;
};

static struct {
        struct provider *provider;
        const char *out;
        struct mutex lock;
        struct cond changed;
        struct list boxes, runs;
        unsigned changes, working;
        char phase[80]; /* the latest */
        pthread_mutex_t print;
} t = {.print = PTHREAD_MUTEX_INITIALIZER};

/* ---- arguments ---- */

static const char *get_text(const struct json *j, const char *key)
{
        return json_string(json_get(j, key));
}

static uint64_t get_number(const struct json *j, const char *key)
{
        int64_t value = 0;

        (void)json_integer(json_get(j, key), &value);
        return (uint64_t)value;
}

static bool get_flag(const struct json *j, const char *key)
{
        bool value = false;

        (void)json_bool(json_get(j, key), &value);
        return value;
}

static struct pair *get_pairs(const struct json *j, const char *key, size_t *ret_count)
{
        struct pair *list = NULL;
        size_t count = 0;

        for (const struct json *each = json_first(json_get(j, key)); each; each = json_next(each)) {
                list = reallocarray(list, count + 1, sizeof(*list));
                list[count++] = (struct pair){strdup(json_key(each)), strdup(json_string(each))};
        }
        *ret_count = count;
        return list;
}

static void get_settings(const struct json *j, struct spec *s)
{
        static const struct {
                const char *key;
                enum setting setting;
        } words[] = {{"image", SETTING_IMAGE},
                     {"template", SETTING_TEMPLATE},
                     {"snapshot", SETTING_SNAPSHOT},
                     {"runtime", SETTING_RUNTIME},
                     {"net", SETTING_NET},
                     {"user", SETTING_USER},
                     {"workdir", SETTING_WORKDIR},
                     {"isolation", SETTING_ISOLATION},
                     {"host", SETTING_HOST},
                     {"port", SETTING_PORT},
                     {"identity", SETTING_IDENTITY},
                     {"known_hosts", SETTING_KNOWN_HOSTS},
                     {"hostkey", SETTING_HOSTKEY},
                     {"jump", SETTING_JUMP},
                     {"root", SETTING_ROOT},
                     {"base", SETTING_BASE},
                     {"transport", SETTING_TRANSPORT}};

        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
                const char *value = get_text(j, words[i].key);

                if (value)
                        s->text[words[i].setting] = strdup(value);
        }
        for (const struct json *each = json_first(json_get(j, "mounts")); each;
             each = json_next(each)) {
                s->mounts = reallocarray(s->mounts, s->mount_count + 1, sizeof(*s->mounts));
                s->mounts[s->mount_count++] =
                        (struct mount_spec){.host = strdup(get_text(each, "host")),
                                            .inside = strdup(get_text(each, "inside")),
                                            .is_readonly = get_flag(each, "ro")};
        }
}

static void get_spec(const struct json *j, const char *owner, struct spec *s)
{
        spec_init(s);
        (void)snprintf(s->key, sizeof(s->key), "%s", get_text(j, "box"));
        (void)snprintf(s->name, sizeof(s->name), "%s",
                       get_text(j, "name") ? get_text(j, "name") : get_text(j, "box"));
        (void)snprintf(s->owner, sizeof(s->owner), "%s", owner);
        s->cpu_milli = (uint32_t)get_number(j, "cpu_milli");
        s->memory = get_number(j, "memory");
        s->processes = get_number(j, "processes");
        s->timeout_ns = get_number(j, "timeout_s") * NS_PER_S;
        s->is_readonly = get_flag(j, "readonly");
        s->env = get_pairs(j, "env", &s->env_count);
        s->labels = get_pairs(j, "labels", &s->label_count);
        get_settings(j, s);
}

/* ---- boxes and runs ---- */

static struct box *find_box(const char *id)
{
        struct box *box = NULL;

        mutex_lock(&t.lock);
        list_for_each (at, &t.boxes) {
                struct known_box *k = container_of(at, struct known_box, link);

                if (strcmp(k->id, id) == 0)
                        box = k->box;
        }
        mutex_unlock(&t.lock);
        return box;
}

/* `id`: what the test calls it, which is its key. */
static void add_box(const char *id, struct box *box)
{
        struct known_box *k = calloc(1, sizeof(*k));

        (void)snprintf(k->id, sizeof(k->id), "%s", id);
        k->box = box;
        mutex_lock(&t.lock);
        list_add_tail(&t.boxes, &k->link);
        mutex_unlock(&t.lock);
}

static void drop_box(const char *id)
{
        mutex_lock(&t.lock);
        list_for_each_safe (at, next, &t.boxes) {
                struct known_box *k = container_of(at, struct known_box, link);

                if (strcmp(k->id, id) != 0)
                        continue;
                list_remove(&k->link);
                free(k);
        }
        mutex_unlock(&t.lock);
}

static struct run *find_run(const struct json *j)
{
        const char *box = get_text(j, "box");
        uint64_t number = get_number(j, "number");
        struct run *run = NULL;

        mutex_lock(&t.lock);
        list_for_each (at, &t.runs) {
                struct run *each = container_of(at, struct run, link);

                if (each->number == number && strcmp(each->box, box) == 0)
                        run = each;
        }
        mutex_unlock(&t.lock);
        return run;
}

static void on_output(struct exec_sink *to, enum exec_stream stream, uint64_t offset,
                      const void *data, size_t size)
{
        struct run *run = container_of(to, struct run, sink);

        /* Written first: who waits for so many bytes reads the files then. */
        if (file_write_all(run->fd[stream], data, size) < 0 ||
            file_write_all(run->fd[2], data, size) < 0)
                log_error("output lost");
        mutex_lock(&t.lock);
        if (run->ends)
                run->ends = 1000; /* output after the end */
        if (offset > run->have[stream])
                run->gaps[stream] += offset - run->have[stream];
        run->have[stream] = offset + size;
        run->outputs++;
        cond_broadcast(&t.changed);
        mutex_unlock(&t.lock);
}

static void on_taken(struct exec_sink *to, uint64_t total)
{
        struct run *run = container_of(to, struct run, sink);

        mutex_lock(&t.lock);
        run->taken = total;
        cond_broadcast(&t.changed);
        mutex_unlock(&t.lock);
}

static void on_end(struct exec_sink *to, const struct exec_end *end)
{
        struct run *run = container_of(to, struct run, sink);

        mutex_lock(&t.lock);
        run->ended_ns = clock_mono_ns();
        run->end = *end;
        run->ends++;
        cond_broadcast(&t.changed);
        mutex_unlock(&t.lock);
}

static void on_changed(void *ctx, const char *id)
{
        (void)ctx;
        (void)id;
        mutex_lock(&t.lock);
        t.changes++;
        cond_broadcast(&t.changed);
        mutex_unlock(&t.lock);
}

static void on_phase(void *ctx, const char *key, const char *text)
{
        (void)ctx;
        (void)key;
        mutex_lock(&t.lock);
        (void)snprintf(t.phase, sizeof(t.phase), "%s", text);
        mutex_unlock(&t.lock);
}

static struct run *new_run(const char *box, uint64_t number)
{
        static const char *const names[] = {"0", "1", "both"};
        struct run *run = calloc(1, sizeof(*run));

        run->sink = (struct exec_sink){on_output, on_taken, on_end};
        (void)snprintf(run->box, sizeof(run->box), "%s", box);
        run->number = number;
        for (unsigned i = 0; i < 3; i++) {
                char path[4096];
                struct stat st;

                (void)snprintf(path, sizeof(path), "%s/%s.%" PRIu64 ".%s", t.out, box, number,
                               names[i]);
                run->fd[i] = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
                if (i < 2 && fstat(run->fd[i], &st) == 0)
                        run->have[i] = (uint64_t)st.st_size;
        }
        return run;
}

static void free_run(struct run *run)
{
        for (unsigned i = 0; i < 3; i++)
                closep(&run->fd[i]);
        free(run);
}

static void add_run(struct run *run, struct exec *exec)
{
        mutex_lock(&t.lock);
        run->exec = exec;
        list_add_tail(&t.runs, &run->link);
        mutex_unlock(&t.lock);
}

/* ---- operations ---- */

struct request {
        struct json *json;
        struct call call;
        struct buf answer; /* ", "key": value" parts */
        const char *owner;
        struct box *box; /* may be NULL */
        struct run *run;
};

static void say_number(struct request *q, const char *key, int64_t value)
{
        (void)buf_addf(&q->answer, ",\"%s\":%" PRId64, key, value);
}

static void say_text(struct request *q, const char *key, const char *value)
{
        (void)buf_addf(&q->answer, ",\"%s\":", key);
        (void)json_add_string(&q->answer, value);
}

static int op_create(struct request *q)
{
        struct spec s;
        struct box *box;
        int r;

        get_spec(q->json, q->owner, &s);
        r = provider_check(t.provider, &q->call, &s);
        if (r == 0 && !get_flag(q->json, "check_only")) {
                r = provider_create(t.provider, &q->call, &s, &box);
                if (r == 0) {
                        add_box(s.key, box);
                        say_text(q, "box_id", box->id);
                }
        }
        spec_done(&s);
        return r;
}

static int op_attach(struct request *q)
{
        const char *key = get_text(q->json, "box"), *id = get_text(q->json, "box_id");
        struct spec s;
        struct box *box;
        int r;

        get_spec(q->json, q->owner, &s);
        r = provider_attach(t.provider, &q->call, id ? id : key,
                            get_flag(q->json, "with_spec") ? &s : NULL, &box);
        if (r == 0)
                add_box(key, box);
        spec_done(&s);
        return r;
}

static int op_release(struct request *q)
{
        drop_box(get_text(q->json, "box"));
        box_release(q->box);
        return 0;
}

static int op_destroy(struct request *q)
{
        return box_destroy(q->box, &q->call);
}

static int op_start(struct request *q)
{
        struct spec s;
        int r;

        get_spec(q->json, q->owner, &s);
        r = box_start(q->box, &q->call, &s);
        spec_done(&s);
        return r;
}

static int op_stop(struct request *q)
{
        return box_stop(q->box, &q->call);
}

static int op_pause(struct request *q)
{
        return box_pause(q->box, &q->call);
}

static int op_resume(struct request *q)
{
        return box_resume(q->box, &q->call);
}

static int op_state(struct request *q)
{
        struct box_status s;
        int r = box_get_state(q->box, &q->call, &s);
        unsigned changes;

        if (r < 0)
                return r;
        mutex_lock(&t.lock);
        changes = t.changes;
        mutex_unlock(&t.lock);
        say_text(q, "state", box_state_name(s.state));
        say_text(q, "raw", s.raw);
        say_text(q, "why", s.sentence);
        say_number(q, "cpu_milli", s.cpu_milli);
        say_number(q, "memory", (int64_t)s.memory);
        say_number(q, "disk", (int64_t)s.disk);
        say_number(q, "expires", (int64_t)(s.expires_real_ns / NS_PER_S));
        say_text(q, "image", s.image);
        say_number(q, "quiet", box_is_quiet(q->box));
        say_number(q, "changes", changes);
        return 0;
}

static int op_phase(struct request *q)
{
        char phase[sizeof(t.phase)];

        mutex_lock(&t.lock);
        memcpy(phase, t.phase, sizeof(phase));
        mutex_unlock(&t.lock);
        say_text(q, "phase", phase);
        return 0;
}

static int op_root(struct request *q)
{
        struct box_root root;
        char link[64], path[4096];
        ssize_t n;
        int r = box_root(q->box, &q->call, &root);

        if (r < 0)
                return r;
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", root.fd);
        n = readlink(link, path, sizeof(path) - 1);
        path[n > 0 ? n : 0] = '\0';
        closep(&root.fd);
        say_text(q, "path", path);
        say_text(q, "inside", root.inside);
        say_number(q, "uid", root.uid);
        return 0;
}

struct lister {
        struct box_sink sink;
        struct request *request;
        int count;
};

static int on_found(struct box_sink *to, const struct box_found *found)
{
        struct lister *l = container_of(to, struct lister, sink);

        (void)buf_add_str(&l->request->answer, l->count++ ? "," : ",\"boxes\":{");
        (void)json_add_string(&l->request->answer, found->key[0] ? found->key : found->id);
        (void)buf_addf(&l->request->answer, ":\"%s\"", box_state_name(found->status.state));
        return 0;
}

static int op_list(struct request *q)
{
        struct lister l = {.sink = {on_found}, .request = q};
        int r = provider_list(t.provider, &q->call, &l.sink);

        (void)buf_add_str(&q->answer, l.count ? "}" : ",\"boxes\":{}");
        return r;
}

static const char **get_argv(const struct json *j)
{
        const char **argv = NULL;
        size_t count = 0;

        for (const struct json *each = json_first(json_get(j, "argv")); each;
             each = json_next(each)) {
                argv = reallocarray(argv, count + 2, sizeof(*argv));
                argv[count++] = json_string(each);
                argv[count] = NULL;
        }
        return argv;
}

static int op_exec(struct request *q)
{
        struct exec_req in = {.number = get_number(q->json, "number"),
                              .cwd = get_text(q->json, "cwd"),
                              .user = get_text(q->json, "user"),
                              .timeout_ns = get_number(q->json, "timeout_ms") * NS_PER_MS,
                              .has_stdin = get_flag(q->json, "stdin")};
        struct pair *env = get_pairs(q->json, "env", &in.env_count);
        const char **argv = get_argv(q->json);
        struct run *run = new_run(get_text(q->json, "box"), in.number);
        struct exec *exec;
        int r;

        in.env = env;
        in.argv = argv;
        r = exec_start(q->box, &q->call, &in, &run->sink, &exec);
        if (r < 0) {
                free_run(run);
        } else {
                say_number(q, "pid", exec->pid);
                say_text(q, "exec_id", exec->id);
                add_run(run, exec);
        }
        for (size_t i = 0; i < in.env_count; i++) {
                free(env[i].key);
                free(env[i].value);
        }
        free(env);
        free(argv);
        return r;
}

static int op_exec_attach(struct request *q)
{
        uint64_t number = get_number(q->json, "number");
        struct run *run = new_run(get_text(q->json, "box"), number);
        uint64_t have[2] = {run->have[0], run->have[1]};
        const char *id = get_text(q->json, "exec_id");
        struct exec *exec;
        int r;

        r = exec_attach(q->box, &q->call, number, id ? id : "", have, &run->sink, &exec);
        if (r < 0) {
                free_run(run);
                return r;
        }
        say_number(q, "pid", exec->pid);
        add_run(run, exec);
        return 0;
}

static void say_run(struct request *q, const struct run *run)
{
        static const char *const kinds[] = {"code", "signal", "timeout", "lost", "error"};

        say_number(q, "ends", run->ends);
        say_number(q, "taken", (int64_t)run->taken);
        say_number(q, "outputs", run->outputs);
        say_number(q, "have0", (int64_t)run->have[0]);
        say_number(q, "have1", (int64_t)run->have[1]);
        say_number(q, "gap0", (int64_t)run->gaps[0]);
        say_number(q, "gap1", (int64_t)run->gaps[1]);
        if (run->ends == 0)
                return;
        say_text(q, "kind", kinds[run->end.kind]);
        say_number(q, "value", run->end.value);
        say_number(q, "dropped0", (int64_t)run->end.dropped[0]);
        say_number(q, "dropped1", (int64_t)run->end.dropped[1]);
        say_text(q, "end_sentence", run->end.sentence);
        say_number(q, "quiet", box_is_quiet(run->exec->box));
}

/* Until the end, or `bytes` of stdout, or `taken` of stdin. */
static int op_wait(struct request *q)
{
        uint64_t deadline_ns = clock_after(get_number(q->json, "ms") * NS_PER_MS);
        uint64_t bytes = get_number(q->json, "bytes"), taken = get_number(q->json, "taken");
        int r = 0;

        mutex_lock(&t.lock);
        while (q->run->ends == 0 && !(bytes > 0 && q->run->have[0] >= bytes) &&
               !(taken > 0 && q->run->taken >= taken)) {
                if (!cond_wait_until(&t.changed, &t.lock, deadline_ns)) {
                        r = -ETIMEDOUT;
                        break;
                }
        }
        say_run(q, q->run);
        mutex_unlock(&t.lock);
        return r;
}

/* `count` bytes of 'x' when there is no text; waits for the window, as a caller must. */
static int op_write(struct request *q)
{
        const char *text = get_text(q->json, "text");
        size_t left = text ? strlen(text) : get_number(q->json, "count");
        char *data = malloc(left + 1);
        uint64_t at = 0;
        int r = 0;

        memset(data, 'x', left);
        if (text)
                memcpy(data, text, left);
        do {
                size_t part = left < 65536 ? left : 65536;

                r = exec_write(q->run->exec, &q->call, data + at, part,
                               get_flag(q->json, "last") && part == left);
                if (r == 0) {
                        at += part;
                        left -= part;
                } else if (r == -EAGAIN && call_check(&q->call) == 0) {
                        mutex_lock(&t.lock);
                        (void)cond_wait_until(&t.changed, &t.lock, clock_after(10 * NS_PER_MS));
                        mutex_unlock(&t.lock);
                        r = 0;
                        q->call.sentence[0] = '\0';
                } else if (r == -EAGAIN) {
                        r = -ETIMEDOUT;
                }
        } while (r == 0 && left > 0);
        free(data);
        return r;
}

static int op_signal(struct request *q)
{
        return exec_signal(q->run->exec, &q->call, (int)get_number(q->json, "signal"));
}

static int op_exec_release(struct request *q)
{
        exec_release(q->run->exec);
        mutex_lock(&t.lock);
        list_remove(&q->run->link);
        mutex_unlock(&t.lock);
        free_run(q->run);
        return 0;
}

/*
 * Microseconds from exec_start to the end of `sh -c true`, `count` times: the median, and
 * exec_start's own.
 */
static int compare_u64(const void *a, const void *b)
{
        const uint64_t *x = a, *y = b;

        return (*x > *y) - (*x < *y);
}

static int op_bench(struct request *q)
{
        size_t count = get_number(q->json, "count");
        const char **argv = get_argv(q->json);
        uint64_t *all = calloc(count, sizeof(*all)), *starts = calloc(count, sizeof(*starts));
        int r = 0;

        for (size_t i = 0; r == 0 && i < count; i++) {
                struct exec_req in = {.number = 1000000 + get_number(q->json, "number") + i,
                                      .argv = argv};
                struct run *run = new_run(get_text(q->json, "box"), in.number);
                uint64_t start_ns = clock_mono_ns();

                r = exec_start(q->box, &q->call, &in, &run->sink, &run->exec);
                starts[i] = clock_mono_ns() - start_ns;
                mutex_lock(&t.lock);
                while (r == 0 && run->ends == 0)
                        cond_wait(&t.changed, &t.lock);
                all[i] = run->ended_ns - start_ns;
                mutex_unlock(&t.lock);
                exec_release(run->exec);
                free_run(run);
        }
        qsort(all, count, sizeof(*all), compare_u64);
        qsort(starts, count, sizeof(*starts), compare_u64);
        say_number(q, "median_us", (int64_t)(all[count / 2] / NS_PER_US));
        say_number(q, "p95_us", (int64_t)(all[count * 95 / 100] / NS_PER_US));
        say_number(q, "start_us", (int64_t)(starts[count / 2] / NS_PER_US));
        free(all);
        free(starts);
        free(argv);
        return r;
}

static const struct {
        const char *name;
        int (*work)(struct request *q);
        bool needs_box, needs_run;
} operations[] = {
        {"create", op_create, false, false},
        {"attach", op_attach, false, false},
        {"list", op_list, false, false},
        {"release", op_release, true, false},
        {"destroy", op_destroy, true, false},
        {"start", op_start, true, false},
        {"stop", op_stop, true, false},
        {"pause", op_pause, true, false},
        {"resume", op_resume, true, false},
        {"state", op_state, true, false},
        {"phase", op_phase, false, false},
        {"root", op_root, true, false},
        {"exec", op_exec, true, false},
        {"exec_attach", op_exec_attach, true, false},
        {"bench", op_bench, true, false},
        {"wait", op_wait, true, true},
        {"write", op_write, true, true},
        {"signal", op_signal, true, true},
        {"exec_release", op_exec_release, true, true},
};

static int perform(struct request *q)
{
        const char *op = get_text(q->json, "op");
        uint64_t ms = get_number(q->json, "call_ms");

        call_init(&q->call, clock_after(ms ? ms * NS_PER_MS : CALL_NS));
        if (op && strncmp(op, "f_", 2) == 0) {
                q->box = find_box(get_text(q->json, "box"));
                return q->box ? conform_files(op, q->box, &q->call, q->json, &q->answer)
                              : call_fail(&q->call, -ESRCH, "no such box in this program");
        }
        for (size_t i = 0; op && i < sizeof(operations) / sizeof(operations[0]); i++) {
                if (strcmp(operations[i].name, op) != 0)
                        continue;
                q->box = operations[i].needs_box ? find_box(get_text(q->json, "box")) : NULL;
                q->run = operations[i].needs_run ? find_run(q->json) : NULL;
                if ((operations[i].needs_box && !q->box) || (operations[i].needs_run && !q->run))
                        return call_fail(&q->call, -ESRCH,
                                         "no such box or command in this program");
                return operations[i].work(q);
        }
        return call_fail(&q->call, -EINVAL, "no such operation");
}

/* ---- lines ---- */

static void answer(struct request *q, int r)
{
        _cleanup_(buf_done) struct buf line = BUF_INIT(LINE_MAX_SIZE);

        (void)buf_addf(&line, "{\"id\":%" PRIu64 ",\"r\":%d,\"errno\":\"%s\",\"sentence\":",
                       get_number(q->json, "id"), r, r < 0 ? errno_name(r) : "");
        (void)json_add_string(&line, q->call.sentence);
        (void)buf_addf(&line, "%s}\n", buf_str(&q->answer));
        (void)pthread_mutex_lock(&t.print);
        (void)file_write_all(STDOUT_FILENO, line.data, line.size); /* the test has gone otherwise */
        (void)pthread_mutex_unlock(&t.print);
}

static void *serve(void *arg)
{
        struct request *q = arg;
        int r = perform(q);

        /*
         * What the answer makes known to the test, and so to the next request, the sanitizer sees
         * by this.
         */
        mutex_lock(&t.lock);
        mutex_unlock(&t.lock);
        answer(q, r);
        json_free(q->json);
        buf_done(&q->answer);
        free(q);
        mutex_lock(&t.lock);
        t.working--;
        cond_broadcast(&t.changed);
        mutex_unlock(&t.lock);
        return NULL;
}

static void take_line(const char *line, size_t size, const char *owner)
{
        struct request *q = calloc(1, sizeof(*q));
        pthread_t thread;

        q->answer = BUF_INIT(LINE_MAX_SIZE);
        q->owner = owner;
        if (json_parse(line, size, &q->json, NULL) < 0) {
                log_error("not JSON: %.*s", (int)size, line);
                _exit(2);
        }
        mutex_lock(&t.lock);
        t.working++;
        mutex_unlock(&t.lock);
        if (pthread_create(&thread, NULL, serve, q) != 0)
                _exit(2);
        (void)pthread_detach(thread);
}

/* End of input: everything is let go of; sandboxes live on. */
static void finish(void)
{
        mutex_lock(&t.lock);
        while (t.working > 0)
                cond_wait(&t.changed, &t.lock);
        mutex_unlock(&t.lock);
        list_for_each_safe (at, next, &t.runs) {
                struct run *run = container_of(at, struct run, link);

                exec_release(run->exec);
                free_run(run);
        }
        list_for_each_safe (at, next, &t.boxes) {
                struct known_box *k = container_of(at, struct known_box, link);

                box_release(k->box);
                free(k);
        }
        provider_close(t.provider);
}

static unsigned parse_allow(const char *words)
{
        return (strstr(words, "isolation") ? ALLOW_ISOLATION : 0u) |
               (strstr(words, "net") ? ALLOW_NET : 0u) |
               (strstr(words, "mount") ? ALLOW_MOUNT : 0u) |
               (strstr(words, "runtime") ? ALLOW_RUNTIME : 0u) |
               (strstr(words, "ssh") ? ALLOW_SSH : 0u);
}

int main(int argc, char **argv)
{
        struct pair pairs[16];
        struct provider_config config = {
                .pairs = pairs, .listener = {.box_changed = on_changed, .box_phase = on_phase}};
        struct call c;
        char *line = NULL;
        size_t room = 0;
        ssize_t n;

        if (argc < 7 || argc > 7 + 16)
                return 2;
        mutex_init(&t.lock);
        cond_init(&t.changed);
        list_init(&t.boxes);
        list_init(&t.runs);
        t.out = argv[3];
        config.instance = argv[1];
        config.state_path = argv[2];
        config.state_dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        config.helper_dir = argv[4];
        config.owner = argv[5];
        config.allow = parse_allow(argv[6]);
        for (int i = 7; i < argc; i++) {
                char *value = strchr(argv[i], '=');

                if (!value)
                        return 2;
                *value = '\0';
                pairs[config.pair_count++] = (struct pair){argv[i], value + 1};
        }
        log_setup(LOG_LEVEL_DEBUG, getenv("SBXFS_DEBUG"), false);
        call_init(&c, clock_after(CALL_NS));
        if (provider_open(argv[1], &config, &c, &t.provider) < 0) {
                log_error("%s", c.sentence);
                return 1;
        }
        (void)file_write_all(STDOUT_FILENO, "{\"id\":0}\n", 9); /* ready */
        while ((n = getline(&line, &room, stdin)) > 0)
                take_line(line, (size_t)n, argv[5]);
        free(line);
        finish();
        return 0;
}
