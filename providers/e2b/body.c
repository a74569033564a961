/* SPDX-License-Identifier: Apache-2.0 */
/* A creation, and a program to start, as JSON; see body.h. */

#include "providers/e2b/body.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "providers/e2b/states.h"
#include "providers/remote/remote.h"
#include "providers/remote/settings.h"
#include "providers/remote/write.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"

#define TEXT_MAX 4096

/* ---- checks ---- */

/* What a template settles when it is built. */
static int check_machine(const struct spec *spec, struct call *c)
{
        const struct {
                enum setting setting;
                const char *name;
                bool is_there;
        } of_template[] = {
                {SETTING_CPU, "cpu", spec->cpu_milli > 0},
                {SETTING_MEMORY, "memory", spec->memory > 0},
                {SETTING_DISK, "disk", spec->disk > 0},
                {SETTING_IMAGE, "image", spec->text[SETTING_IMAGE] != NULL},
        };

        for (size_t i = 0; i < sizeof(of_template) / sizeof(of_template[0]); i++)
                if (of_template[i].is_there || (spec->given & SETTING_BIT(of_template[i].setting)))
                        return call_fail(c, -EOPNOTSUPP,
                                         "E2B settles %s when a template is built: build one with "
                                         "it, and name it with template=",
                                         of_template[i].name);
        return 0;
}

static int check_template(const struct spec *spec, struct call *c)
{
        static const enum setting both[] = {SETTING_TEMPLATE, SETTING_SNAPSHOT};

        if (spec->text[SETTING_TEMPLATE] && spec->text[SETTING_SNAPSHOT] &&
            (spec->given & SETTING_BIT(SETTING_SNAPSHOT)) &&
            (spec->given & SETTING_BIT(SETTING_TEMPLATE)))
                return call_fail(c, -EINVAL, "template or snapshot: one of them");
        for (size_t i = 0; i < 2; i++) {
                const char *name = spec->text[both[i]];

                if (name && (!settings_has_only(name, SETTINGS_ALNUM "-_./:") || name[0] == '-'))
                        return call_fail(c, -EINVAL, "\"%.80s\" is no name of a template", name);
        }
        return 0;
}

int e2b_check(const struct spec *spec, struct call *c)
{
        int r = check_machine(spec, c);

        if (r == 0)
                r = check_template(spec, c);
        if (r == 0)
                r = settings_check_net(spec, SETTINGS_ALNUM "-.*:/,",
                                       "none, all, allow:HOST[,HOST...] or deny:CIDR[,CIDR...]", c);
        if (r == 0)
                r = settings_check_places(spec, c);
        if (r == 0)
                r = settings_check_labels(spec, METADATA_PREFIX, TEXT_MAX, c);
        if (r == 0 && spec->timeout_ns > UINT64_C(365) * 86400 * NS_PER_S)
                r = call_fail(c, -EINVAL, "timeout: that long can't be");
        return r;
}

uint64_t e2b_timeout_s(const struct spec *spec)
{
        return spec->timeout_ns == 0 ? E2B_TIMEOUT_DEFAULT_S
                                     : (spec->timeout_ns + NS_PER_S - 1) / NS_PER_S;
}

/* ---- writing ---- */

static void put_metadata(struct json_out *o, const struct spec *spec)
{
        const char *workdir = spec->text[SETTING_WORKDIR], *user = spec->text[SETTING_USER];

        write_raw(o, ",\"metadata\":{");
        write_member(o, "", METADATA_KEY, spec->key);
        write_member(o, ",", METADATA_NAME, spec->name);
        write_member(o, ",", METADATA_OWNER, spec->owner);
        if (workdir)
                write_member(o, ",", METADATA_WORKDIR, workdir);
        if (user)
                write_member(o, ",", METADATA_USER, user);
        for (size_t i = 0; i < spec->label_count; i++)
                write_member(o, ",", spec->labels[i].key, spec->labels[i].value);
        write_raw(o, "}");
}

/* "a,b" as "a","b". */
static void put_list(struct json_out *o, const char *list)
{
        const char *comma = "";

        while (*list) {
                size_t size = strcspn(list, ",");
                char each[256];

                if (size > 0 && size < sizeof(each)) {
                        memcpy(each, list, size);
                        each[size] = '\0';
                        write_raw(o, comma);
                        write_string(o, each);
                        comma = ",";
                }
                list += size + (list[size] == ',');
        }
}

static void put_net(struct json_out *o, const struct spec *spec)
{
        const char *net = spec->text[SETTING_NET], *hosts;

        if (!net)
                return;
        if (strcmp(net, "none") == 0 || strcmp(net, "all") == 0) {
                write_raw(o, net[0] == 'n' ? ",\"allow_internet_access\":false"
                                           : ",\"allow_internet_access\":true");
                return;
        }
        hosts = settings_net_list(net, "allow:");
        if (hosts) { /* what is allowed goes before what is denied */
                write_raw(o, ",\"network\":{\"denyOut\":[\"0.0.0.0/0\"],\"allowOut\":[");
        } else {
                hosts = settings_net_list(net, "deny:");
                write_raw(o, ",\"network\":{\"denyOut\":[");
        }
        put_list(o, hosts ? hosts : ""); /* checked */
        write_raw(o, "]}");
}

int e2b_create_body(const struct spec *spec, bool has_secure, struct buf *to)
{
        const char *template = spec->text[SETTING_SNAPSHOT];
        struct json_out o = {.to = to};

        if (!template || (spec->given & SETTING_BIT(SETTING_TEMPLATE)))
                template = spec->text[SETTING_TEMPLATE] ? spec->text[SETTING_TEMPLATE] : template;
        write_member(&o, "{", "templateID", template ? template : E2B_TEMPLATE_DEFAULT);
        if (o.failed == 0)
                o.failed = buf_addf(to, ",\"timeout\":%" PRIu64, e2b_timeout_s(spec));
        write_raw(&o, ",\"autoPause\":true"); /* its time ends in a pause: files and memory stay */
        if (has_secure)
                write_raw(&o, ",\"secure\":true");
        put_metadata(&o, spec);
        write_pairs(&o, "envVars", spec->env, spec->env_count);
        put_net(&o, spec);
        write_raw(&o, "}");
        return o.failed;
}

/* ---- programs ---- */

int e2b_start_body(const struct remote_program *p, struct buf *to)
{
        struct json_out o = {.to = to};
        const size_t env_max = sizeof(p->env) / sizeof(p->env[0]);

        write_member(&o, "{\"process\":{", "cmd", p->argv[0]);
        write_raw(&o, ",\"args\":[");
        for (size_t i = 1; p->argv[i]; i++) {
                write_raw(&o, i > 1 ? "," : "");
                write_string(&o, p->argv[i]);
        }
        write_raw(&o, "],\"envs\":{");
        for (size_t i = 0; i < env_max && p->env[i][0]; i++)
                write_member(&o, i > 0 ? "," : "", p->env[i][0], p->env[i][1]);
        write_raw(&o, "}");
        if (p->cwd)
                write_member(&o, ",", "cwd", p->cwd);
        write_raw(&o, p->has_stdin ? "},\"stdin\":true}" : "},\"stdin\":false}");
        return o.failed;
}
