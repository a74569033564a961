/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator and a spec say; see settings.h. */

#include "providers/remote/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"

#define HOST_MAX 200
#define USER_MAX 32
#define WORKDIR_MAX 255

/* ---- the operator's ---- */

const char *settings_variable(const char *name)
{
        const char *value = name ? getenv(name) : NULL; /* NOLINT(concurrency-mt-unsafe) */

        return value && *value ? value : NULL;
}

const char *settings_text(const struct pair *pairs, size_t count, const char *key,
                          const char *variable)
{
        for (size_t i = 0; i < count; i++)
                if (strcmp(pairs[i].key, key) == 0)
                        return pairs[i].value;
        return settings_variable(variable);
}

int settings_keep(struct call *c, const char *value, char **ret)
{
        if (!value)
                return 0;
        *ret = strdup(value);
        return *ret ? 0 : call_fail(c, -ENOMEM, "out of memory");
}

int settings_keep_url(struct call *c, const char *value, char **ret)
{
        size_t size;
        int r = settings_keep(c, value, ret);

        if (r < 0 || !*ret)
                return r;
        for (size = strlen(*ret); size > 0 && (*ret)[size - 1] == '/'; size--)
                (*ret)[size - 1] = '\0';
        return 0;
}

int settings_keep_key(struct call *c, const char *name, const char *value, char **ret)
{
        if (value && value[strcspn(value, "\r\n\t ")] != '\0')
                return call_fail(c, -EINVAL, "%s: blanks are in it", name);
        return settings_keep(c, value, ret);
}

int settings_read_files(const char *value, struct call *c, bool *ret_has_no_agent)
{
        *ret_has_no_agent = value && strcmp(value, "shell") == 0;
        return *ret_has_no_agent || !value || strcmp(value, "agent") == 0
                       ? 0
                       : call_fail(c, -EINVAL, "files = %.80s: agent or shell", value);
}

bool settings_is_host(const char *text)
{
        return settings_has_only(text, SETTINGS_ALNUM ".-") && strlen(text) <= HOST_MAX &&
               text[0] != '-' && text[0] != '.';
}

/* ---- a spec's ---- */

bool settings_has_only(const char *text, const char *set)
{
        return text[0] != '\0' && text[strspn(text, set)] == '\0';
}

int settings_check_places(const struct spec *spec, struct call *c)
{
        const char *workdir = spec->text[SETTING_WORKDIR], *user = spec->text[SETTING_USER];

        if (workdir && (workdir[0] != '/' || workdir[1] == '\0' || strstr(workdir, "/../") ||
                        strstr(workdir, "//") || strlen(workdir) > WORKDIR_MAX))
                return call_fail(c, -EINVAL, "workdir=%.80s: an absolute path, and not /", workdir);
        if (user && (!settings_has_only(user, SETTINGS_ALNUM "._-") || user[0] == '-' ||
                     strlen(user) > USER_MAX))
                return call_fail(c, -EINVAL, "user=%.80s: the name of a user", user);
        return 0;
}

const char *settings_net_list(const char *net, const char *head)
{
        return strncmp(net, head, strlen(head)) == 0 ? net + strlen(head) : NULL;
}

int settings_check_net(const struct spec *spec, const char *set, const char *forms, struct call *c)
{
        const char *net = spec->text[SETTING_NET], *list;

        if (!net || strcmp(net, "none") == 0 || strcmp(net, "all") == 0)
                return 0;
        list = settings_net_list(net, "allow:");
        if (!list)
                list = settings_net_list(net, "deny:");
        if (list && settings_has_only(list, set))
                return 0;
        return call_fail(c, -EINVAL, "net=%.80s: %s", net, forms);
}

int settings_check_label_name(const struct pair *label, const char *prefix, const char *whose,
                              struct call *c)
{
        return strncmp(label->key, prefix, strlen(prefix)) == 0
                       ? call_fail(c, -EINVAL, "label.%.80s: labels %s* are %s", label->key, prefix,
                                   whose)
                       : 0;
}

int settings_check_labels(const struct spec *spec, const char *ours, size_t size_max,
                          struct call *c)
{
        for (size_t i = 0; i < spec->label_count; i++) {
                const struct pair *p = &spec->labels[i];
                int r = settings_check_label_name(p, ours, "ours", c);

                if (r < 0)
                        return r;
                if (strlen(p->key) > size_max || strlen(p->value) > size_max)
                        return call_fail(c, -EINVAL, "label.%.80s is too long", p->key);
        }
        return 0;
}
