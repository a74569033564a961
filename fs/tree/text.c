/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

#include <errno.h>

#include "fs/control/print.h"
#include "fs/sandbox/results.h"

#define TEXT_MAX (16 * 1024 * 1024) /* the root's status with very many sandboxes */

static const char readme[] =
        "Each directory here is a sandbox.\n"
        "\n"
        "  mkdir NAME                        create one (returns at once; NAME/status says how it goes)\n"
        "  echo 'create NAME memory=2G' > ctl    the same with settings\n"
        "  NAME/fs/                          its files: read, write, edit them as any others\n"
        "  echo 'exec make test' > NAME/ctl  run a command there (sh -c)\n"
        "  cat NAME/wait                     blocks until it has ended: \"exit 0\"; wait.30 at most 30 s\n"
        "  cat NAME/stdout NAME/stderr       what it printed; NAME/follow gives it as it comes\n"
        "  cat NAME/exec/3/stdout            every command keeps its own output, exit, status\n"
        "  rmdir NAME                        destroy it\n"
        "\n"
        "ctl of a sandbox takes, one a line: exec TEXT, execv WORD..., kill [-SIGNAL] [EXEC], eof [EXEC],\n"
        "start, stop, restart, pause, resume, destroy, timeout 1h, label k=v, protect on|off, refresh,\n"
        "sync, retry, discard PATH. ctl of the root takes create NAME key=value..., adopt PROVIDER:ID\n"
        "[as NAME], refresh, reload. exec takes name= cwd= timeout= stdin=open unsent=ignore env.K= before\n"
        "its text. A line that starts with { is JSON. What went wrong is in NAME/error; what the sandbox\n"
        "refused of what was written, while there is any, in NAME/unsent: retry it or discard it, else no\n"
        "command starts. Not listed, but there: wait, wait.SECONDS,\n"
        "follow, status.json in NAME/ and NAME/exec/N/.\n"
        "\n"
        "With nothing but write-file and read-file: mkdir NAME/exec/build, write the command to\n"
        "NAME/exec/build/cmd, read NAME/exec/build/wait, then NAME/exec/build/output.\n"
        "\n"
        "Three examples\n"
        "  echo 'exec timeout=5m -- pytest -q' > web/ctl && cat web/wait && tail web/stdout\n"
        "  echo '{\"verb\":\"exec\",\"argv\":[\"python3\",\"-c\",\"print(1)\"]}' > web/ctl\n"
        "  exec 3<>web/ctl; echo 'exec sleep 9' >&3; read n <&3; cat web/exec/$n/wait\n";

static int root_text(struct tree *t, const struct spot *s, struct buf *to, uint64_t *ret_mtime_ns)
{
        struct fleet *fleet = atomic_load(&t->fleet);

        if (s->row->number == ROW_ROOT_README)
                return buf_add_str(to, readme);
        if (!fleet)
                return 0;
        *ret_mtime_ns = fleet_changed_real_ns(fleet);
        return s->row->number == ROW_ROOT_CTL ? results_print(fleet_results(fleet), to)
                                              : fleet_print_status(fleet, to);
}

static int json_of(struct buf *to, const struct sandbox_info *sandbox, const struct task_info *task)
{
        struct buf lines = BUF_INIT(TEXT_MAX);
        int r = sandbox ? print_sandbox_status(&lines, sandbox) : print_task_status(&lines, task);

        r = r < 0 ? r : print_json(to, &lines);
        buf_done(&lines);
        return r;
}

static int sandbox_text(struct tree *t, const struct spot *s, struct buf *to,
                        uint64_t *ret_mtime_ns)
{
        struct sandbox_info info;

        slot_tell_dirty(t, s->sandbox);
        sandbox_watched(s->sandbox);
        sandbox_get(s->sandbox, &info);
        *ret_mtime_ns = info.changed_real_ns;
        switch (s->row->number) {
        case ROW_CTL: return results_print(sandbox_results(s->sandbox), to);
        case ROW_ERROR:
                *ret_mtime_ns = info.error_real_ns ? info.error_real_ns : info.created_real_ns;
                return *info.last_error ? buf_addf(to, "%s\n", info.last_error) : 0;
        case ROW_UNSENT:
                *ret_mtime_ns = info.unsent_real_ns ? info.unsent_real_ns : info.created_real_ns;
                return slot_print_unsent(t, s->sandbox, to);
        case ROW_JSON: return json_of(to, &info, NULL);
        default: return print_sandbox_status(to, &info);
        }
}

static int task_text(const struct spot *s, struct buf *to, uint64_t *ret_mtime_ns)
{
        struct task_info info;

        task_get(s->task, &info);
        *ret_mtime_ns = info.changed_real_ns;
        switch (s->row->number) {
        case ROW_TASK_CTL: return 0; /* results are listed in the sandbox's */
        case ROW_TASK_CMD: return task_print_cmd(s->task, to);
        case ROW_TASK_EXIT: return *info.exit ? buf_addf(to, "%s\n", info.exit) : 0;
        case ROW_TASK_JSON: return json_of(to, NULL, &info);
        default: return print_task_status(to, &info);
        }
}

int text_of(struct tree *t, const struct spot *s, struct buf *to, uint64_t *ret_mtime_ns)
{
        if (!s->sandbox)
                return root_text(t, s, to, ret_mtime_ns);
        return s->task ? task_text(s, to, ret_mtime_ns) : sandbox_text(t, s, to, ret_mtime_ns);
}

uint64_t text_version(struct tree *t, const struct spot *s)
{
        struct fleet *fleet = atomic_load(&t->fleet);

        if (s->task)
                return task_changes(s->task);
        if (s->sandbox)
                return sandbox_generation(s->sandbox);
        return fleet ? fleet_generation(fleet) : 0;
}

struct snapshot *text_snapshot(struct tree *t, const struct spot *s, uint64_t *ret_mtime_ns)
{
        struct buf text = BUF_INIT(TEXT_MAX);
        struct snapshot *snapshot = NULL;

        if (text_of(t, s, &text, ret_mtime_ns) == 0)
                snapshot = snapshot_new(&text);
        buf_done(&text);
        return snapshot;
}
