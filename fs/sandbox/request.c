/* SPDX-License-Identifier: Apache-2.0 */
/* What a command was asked to be: kept until it was sent, and printed for its `cmd`. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/settings.h"
#include "transport/base/buf.h"
#include "transport/base/json.h"

static int copy_text(const char *text, char **ret)
{
        if (!text)
                return 0;
        *ret = strdup(text);
        return *ret ? 0 : -ENOMEM;
}

static int copy_argv(const struct task_options *o, char ***ret)
{
        const char *const shell[] = {"sh", "-c", o->text, NULL};
        const char *const *argv = o->text ? shell : o->argv;
        size_t count = 0;
        char **copy;

        while (argv[count])
                count++;
        copy = calloc(count + 1, sizeof(*copy));
        *ret = copy;
        if (!copy)
                return -ENOMEM;
        for (size_t i = 0; i < count; i++) {
                copy[i] = strdup(argv[i]);
                if (!copy[i])
                        return -ENOMEM;
        }
        return 0;
}

int task_request_new(const struct task_options *o, struct task_request **ret)
{
        struct task_request *q = calloc(1, sizeof(*q));
        int r;

        if (!q)
                return -ENOMEM;
        q->timeout_ns = o->timeout_ns;
        q->ignore_unsent = o->ignore_unsent;
        r = copy_argv(o, &q->argv);
        if (r == 0)
                r = copy_text(o->cwd, &q->cwd);
        if (r == 0)
                r = copy_text(o->user, &q->user);
        for (size_t i = 0; i < o->env_count && r == 0; i++)
                r = pairs_set(&q->env, &q->env_count, o->env[i].key, o->env[i].value);
        if (r < 0) {
                task_request_free(q);
                return r;
        }
        *ret = q;
        return 0;
}

void task_request_free(struct task_request *q)
{
        if (!q)
                return;
        for (char **a = q->argv; a && *a; a++)
                free(*a);
        free(q->argv);
        free(q->cwd);
        free(q->user);
        pairs_free(q->env, q->env_count);
        free(q);
}

static int print_argv(const struct task_options *o, struct buf *to)
{
        int r = buf_add_str(to, "{\"argv\":[");

        for (size_t i = 0; o->argv[i] && r == 0; i++) {
                if (i > 0)
                        r = buf_add_char(to, ',');
                if (r == 0)
                        r = json_add_string(to, o->argv[i]);
        }
        return r < 0 ? r : buf_add_str(to, "]}\n");
}

int task_request_print(const struct task_options *o, struct buf *to)
{
        size_t size;
        int r;

        if (!o->text)
                return print_argv(o, to);
        size = strlen(o->text);
        r = buf_add(to, o->text, size);
        if (r == 0 && (size == 0 || o->text[size - 1] != '\n'))
                r = buf_add_char(to, '\n');
        return r;
}
