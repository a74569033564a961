/* SPDX-License-Identifier: Apache-2.0 */
/* Texts in the info structs are escaped already: nothing here can forge a line. */
#include "fs/control/print.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/sandbox/sandbox.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/base/units.h"

static int text(struct buf *to, const char *key, const char *value)
{
        return buf_addf(to, "%s %s\n", key, *value ? value : "-");
}

/* Epoch seconds with milliseconds. */
static int moment(struct buf *to, const char *key, uint64_t real_ns)
{
        if (!real_ns)
                return text(to, key, "");
        return buf_addf(to, "%s %" PRIu64 ".%03u\n", key, real_ns / NS_PER_S,
                        (unsigned)(real_ns % NS_PER_S / NS_PER_MS));
}

static int quantity(struct buf *to, const char *key, uint64_t value,
                    void (*format)(uint64_t, char *, size_t))
{
        char word[32] = "";

        if (value)
                format(value, word, sizeof(word));
        return text(to, key, word);
}

static int number(struct buf *to, const char *key, uint64_t value)
{
        return buf_addf(to, "%s %" PRIu64 "\n", key, value);
}

static int processors(struct buf *to, uint32_t milli)
{
        char word[32] = "";

        if (milli)
                units_format_cpu(milli, word, sizeof(word));
        return text(to, "cpu", word);
}

static int print_latest(struct buf *to, const struct sandbox_info *s)
{
        int r = text(to, "exec", s->has_task ? s->task.name : "");

        r = r < 0 ? r : text(to, "exec_state", s->has_task ? task_state_name(s->task.state) : "");
        r = r < 0 ? r : text(to, "exit", s->has_task ? s->task.exit : "");
        return r < 0 ? r : number(to, "execs_running", s->running);
}

int print_sandbox_status(struct buf *to, const struct sandbox_info *s)
{
        static const char *const env[] = {[ENV_NONE] = "", [ENV_SET] = "set", [ENV_LOST] = "lost"};
        int r = text(to, "state", box_state_name(s->state));

        r = r < 0 ? r : text(to, "phase", s->phase);
        r = r < 0 ? r : moment(to, "since", s->since_real_ns);
        r = r < 0 ? r : text(to, "name", s->name);
        r = r < 0 ? r : text(to, "provider", s->provider);
        r = r < 0 ? r : text(to, "id", s->id);
        r = r < 0 ? r : text(to, "provider_state", s->provider_state);
        r = r < 0 ? r : text(to, "reachable", s->reachable < 0 ? "" : s->reachable ? "yes" : "no");
        r = r < 0 ? r : text(to, "image", s->image);
        r = r < 0 ? r : processors(to, s->cpu_milli);
        r = r < 0 ? r : quantity(to, "memory", s->memory, units_format_size);
        r = r < 0 ? r : quantity(to, "disk", s->disk, units_format_size);
        r = r < 0 ? r : moment(to, "expires", s->expires_real_ns);
        r = r < 0 ? r : text(to, "env", env[s->env]);
        r = r < 0 ? r : print_latest(to, s);
        r = r < 0 ? r : number(to, "dirty_files", s->dirty_files);
        r = r < 0 ? r : number(to, "dirty_bytes", s->dirty_bytes);
        r = r < 0 ? r : number(to, "unsent", s->unsent);
        r = r < 0 ? r : number(to, "generation", s->generation);
        r = r < 0 ? r : moment(to, "created", s->created_real_ns);
        r = r < 0 ? r
                  : (s->ready_ms ? number(to, "ready_ms", s->ready_ms) : text(to, "ready_ms", ""));
        return r < 0 ? r : text(to, "last_error", s->last_error);
}

int print_task_status(struct buf *to, const struct task_info *t)
{
        int r = text(to, "state", task_state_name(t->state));

        r = r < 0 ? r : text(to, "exit", t->exit);
        r = r < 0 ? r : moment(to, "started", t->started_real_ns);
        r = r < 0 ? r : moment(to, "ended", t->ended_real_ns);
        r = r < 0 ? r : (t->pid > 0 ? number(to, "pid", (uint64_t)t->pid) : text(to, "pid", ""));
        r = r < 0 ? r : number(to, "dropped_stdout", t->dropped[0]);
        r = r < 0 ? r : number(to, "dropped_stderr", t->dropped[1]);
        return r < 0 ? r : text(to, "name", t->name);
}

/* One "key value" line, without its newline, as a member. */
static int member(struct buf *to, const char *line, size_t size, bool is_first)
{
        struct buf word = BUF_INIT(64 * 1024);
        const char *space = memchr(line, ' ', size);
        size_t key_size = space ? (size_t)(space - line) : size;
        int r = buf_add_str(to, is_first ? "" : ",");

        r = r < 0 ? r : buf_add(&word, line, key_size);
        r = r < 0 ? r : json_add_string(to, buf_str(&word));
        r = r < 0 ? r : buf_add_char(to, ':');
        buf_clear(&word);
        if (r == 0 && space)
                r = buf_add(&word, space + 1, size - key_size - 1);
        if (r == 0)
                r = strcmp(buf_str(&word), "-") == 0 ? buf_add_str(to, "null")
                                                     : json_add_string(to, buf_str(&word));
        buf_done(&word);
        return r;
}

int print_json(struct buf *to, const struct buf *lines)
{
        const char *at = buf_str(lines), *end = at + lines->size;
        bool is_first = true;
        int r = buf_add_char(to, '{');

        while (r == 0 && at < end) {
                const char *newline = memchr(at, '\n', (size_t)(end - at));
                size_t size = (size_t)((newline ? newline : end) - at);

                r = member(to, at, size, is_first);
                is_first = false;
                at += size + 1;
        }
        return r < 0 ? r : buf_add_str(to, "}\n");
}
