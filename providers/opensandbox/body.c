/* SPDX-License-Identifier: Apache-2.0 */
/* A creation as JSON; see body.h. */

#include "providers/opensandbox/body.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "providers/opensandbox/config.h"
#include "providers/opensandbox/labels.h"
#include "providers/opensandbox/states.h"
#include "providers/remote/settings.h"
#include "providers/remote/write.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define RESERVED_PREFIX "opensandbox.io/"
#define TIMEOUT_MAX_S (UINT64_C(365) * 86400)

/* ---- checks ---- */

static bool is_given(const struct spec *spec, enum setting s)
{
        return spec->text[s] && (spec->given & SETTING_BIT(s));
}

static int check_machine(const struct spec *spec, struct call *c)
{
        static const enum setting all[] = {SETTING_IMAGE, SETTING_TEMPLATE, SETTING_SNAPSHOT};
        unsigned count = 0;

        for (size_t i = 0; i < 3; i++) {
                const char *name = spec->text[all[i]];

                count += is_given(spec, all[i]);
                if (name && (!settings_has_only(name, SETTINGS_ALNUM "-_./:@") || name[0] == '-'))
                        return call_fail(c, -EINVAL, "\"%.80s\" is no name of an image", name);
        }
        if (count > 1)
                return call_fail(c, -EINVAL, "image, template or snapshot: one of them");
        if (spec->disk > 0 || (spec->given & SETTING_BIT(SETTING_DISK)))
                return call_fail(c, -EOPNOTSUPP,
                                 "OpenSandbox limits no disk: its deployment settles that");
        return 0;
}

static int check_labels(const struct spec *spec, struct call *c)
{
        for (size_t i = 0; i < spec->label_count; i++) {
                const struct pair *p = &spec->labels[i];
                int r = settings_check_label_name(p, LABEL_PREFIX, "ours", c);

                if (r == 0)
                        r = settings_check_label_name(p, RESERVED_PREFIX, "the service's", c);
                if (r < 0)
                        return r;
                if (!label_is_key(p->key) || !label_is_value(p->value))
                        return call_fail(
                                c, -EINVAL,
                                "label.%.80s: up to 63 letters, digits and \"-_.\", with a "
                                "letter or digit at both ends, is what a label may hold",
                                p->key);
        }
        return 0;
}

static int check_places(const struct spec *spec, struct call *c)
{
        _cleanup_(buf_done) struct buf escaped = BUF_INIT(4096);
        const char *workdir = spec->text[SETTING_WORKDIR], *user = spec->text[SETTING_USER];
        int r = settings_check_places(spec, c);

        if (r < 0)
                return r;
        if (user && !label_is_value(user))
                return call_fail(c, -EINVAL, "user=%.80s: it must fit into a label", user);
        if (workdir && (label_escape(&escaped, workdir) < 0 ||
                        escaped.size > (size_t)LABEL_PIECES * (LABEL_MAX - 2)))
                return call_fail(c, -EINVAL, "workdir=%.80s is too long for labels", workdir);
        return 0;
}

static int check_time(const struct spec *spec, struct call *c)
{
        uint64_t seconds = osb_timeout_s(spec);

        if (seconds > 0 && seconds < OSB_TIMEOUT_MIN_S)
                return call_fail(c, -EINVAL, "timeout: OpenSandbox takes %d s at least",
                                 OSB_TIMEOUT_MIN_S);
        return seconds > TIMEOUT_MAX_S ? call_fail(c, -EINVAL, "timeout: that long can't be") : 0;
}

int osb_check(const struct spec *spec, struct call *c)
{
        int r = check_machine(spec, c);

        if (r == 0)
                r = settings_check_net(spec, SETTINGS_ALNUM "-.*,",
                                       "none, all, allow:HOST[,HOST...] or deny:HOST[,HOST...]", c);
        if (r == 0)
                r = check_places(spec, c);
        if (r == 0)
                r = check_labels(spec, c);
        return r == 0 ? check_time(spec, c) : r;
}

uint64_t osb_timeout_s(const struct spec *spec)
{
        return spec->timeout_ns / NS_PER_S + (spec->timeout_ns % NS_PER_S > 0);
}

/* ---- quantities ---- */

void osb_format_cpu(uint32_t milli, char ret[32])
{
        if (milli % 1000 == 0)
                (void)snprintf(ret, 32, "%" PRIu32, milli / 1000);
        else
                (void)snprintf(ret, 32, "%" PRIu32 "m", milli);
}

void osb_format_memory(uint64_t bytes, char ret[32])
{
        static const char *const units[] = {"Ki", "Mi", "Gi"};
        uint64_t n = bytes / 1024 + (bytes % 1024 > 0);
        size_t unit = 0;

        while (unit < 2 && n % 1024 == 0 && n > 0) {
                n /= 1024;
                unit++;
        }
        (void)snprintf(ret, 32, "%" PRIu64 "%s", n, units[unit]);
}

/* ---- writing ---- */

/* Whether the first part of its name is a registry's, as Docker reads it. */
static bool has_registry(const char *image)
{
        size_t size = strcspn(image, "/");

        return image[size] == '/' && (memchr(image, '.', size) || memchr(image, ':', size) ||
                                      (size == 9 && strncmp(image, "localhost", 9) == 0));
}

static void put_image(struct json_out *o, const struct osb_config *d, const char *image)
{
        char whole[1024];

        if (d->registry && !has_registry(image))
                (void)snprintf(whole, sizeof(whole), "%s/%s", d->registry, image);
        else
                (void)snprintf(whole, sizeof(whole), "%s", image);
        write_member(o, "\"image\":{", "uri", whole);
        if (d->image_user && d->image_password) {
                write_member(o, ",\"auth\":{", "username", d->image_user);
                write_member(o, ",", "password", d->image_password);
                write_raw(o, "}");
        }
        write_raw(o, "}");
}

static void put_entrypoint(struct json_out *o, const char *words)
{
        const char *comma = "";

        write_raw(o, ",\"entrypoint\":[");
        while (*(words += strspn(words, " \t"))) {
                size_t size = strcspn(words, " \t");
                char each[1024];

                (void)snprintf(each, sizeof(each), "%.*s", (int)size, words);
                write_raw(o, comma);
                write_string(o, each);
                comma = ",";
                words += size;
        }
        write_raw(o, "]");
}

/* What it is made from: what was named, else a snapshot, else an image. */
static void put_source(struct json_out *o, const struct osb_config *d, const struct spec *spec)
{
        const char *image = spec->text[SETTING_IMAGE], *pool = spec->text[SETTING_TEMPLATE],
                   *snapshot = spec->text[SETTING_SNAPSHOT];
        bool has_image = is_given(spec, SETTING_IMAGE);

        write_raw(o, "{");
        if (pool && !has_image && !is_given(spec, SETTING_SNAPSHOT)) {
                write_member(o, "\"extensions\":{", "poolRef", pool);
                write_raw(o, "}");
        } else if (snapshot && !has_image) {
                write_member(o, "", "snapshotId", snapshot);
        } else {
                put_image(o, d, image ? image : OSB_IMAGE_DEFAULT);
        }
        put_entrypoint(o, d->entrypoint);
}

static void put_limits(struct json_out *o, const struct spec *spec)
{
        char text[32];

        write_raw(o, ",\"resourceLimits\":{");
        if (spec->cpu_milli > 0) {
                osb_format_cpu(spec->cpu_milli, text);
                write_member(o, "", "cpu", text);
        }
        if (spec->memory > 0) {
                osb_format_memory(spec->memory, text);
                write_member(o, spec->cpu_milli > 0 ? "," : "", "memory", text);
        }
        write_raw(o, "}");
}

/* In pieces; checked to fit. */
static void put_long(struct json_out *o, const char *key, const char *text)
{
        _cleanup_(buf_done) struct buf escaped = BUF_INIT(4096);
        char piece[LABEL_MAX + 1], each[64];

        if (o->failed == 0)
                o->failed = label_escape(&escaped, text);
        for (unsigned i = 0; i < LABEL_PIECES && o->failed == 0; i++) {
                label_piece(buf_str(&escaped), i, piece);
                if (!piece[0])
                        break;
                (void)snprintf(each, sizeof(each), i == 0 ? "%s" : "%s-%u", key, i);
                write_member(o, ",", each, piece);
        }
}

static void put_metadata(struct json_out *o, const struct spec *spec)
{
        write_member(o, ",\"metadata\":{", LABEL_KEY, spec->key);
        write_member(o, ",", LABEL_NAME, spec->name);
        write_member(o, ",", LABEL_OWNER, spec->owner);
        if (spec->text[SETTING_WORKDIR])
                put_long(o, LABEL_WORKDIR, spec->text[SETTING_WORKDIR]);
        if (spec->text[SETTING_USER])
                write_member(o, ",", LABEL_USER, spec->text[SETTING_USER]);
        for (size_t i = 0; i < spec->label_count; i++)
                write_member(o, ",", spec->labels[i].key, spec->labels[i].value);
        write_raw(o, "}");
}

static void put_rules(struct json_out *o, const char *action, const char *hosts)
{
        const char *comma = "";

        while (*hosts) {
                size_t size = strcspn(hosts, ",");
                char each[256];

                if (size > 0 && size < sizeof(each)) {
                        (void)snprintf(each, sizeof(each), "%.*s", (int)size, hosts);
                        write_raw(o, comma);
                        write_member(o, "{", "action", action);
                        write_member(o, ",", "target", each);
                        write_raw(o, "}");
                        comma = ",";
                }
                hosts += size + (hosts[size] == ',');
        }
}

static void put_net(struct json_out *o, const struct spec *spec)
{
        const char *net = spec->text[SETTING_NET], *hosts;

        if (!net || strcmp(net, "all") == 0)
                return;
        hosts = settings_net_list(net, "deny:");
        write_member(o, ",\"networkPolicy\":{", "defaultAction", hosts ? "allow" : "deny");
        write_raw(o, ",\"egress\":[");
        if (hosts)
                put_rules(o, "deny", hosts);
        hosts = settings_net_list(net, "allow:");
        if (hosts)
                put_rules(o, "allow", hosts);
        write_raw(o, "]}");
}

int osb_create_body(const struct osb_config *d, const struct spec *spec, struct buf *to)
{
        struct json_out o = {.to = to};

        put_source(&o, d, spec);
        if (o.failed == 0 && spec->timeout_ns > 0)
                o.failed = buf_addf(to, ",\"timeout\":%" PRIu64, osb_timeout_s(spec));
        put_limits(&o, spec);
        put_metadata(&o, spec);
        write_pairs(&o, "env", spec->env, spec->env_count);
        put_net(&o, spec);
        write_raw(&o, "}");
        return o.failed;
}

int osb_expiry_body(uint64_t real_ns, struct buf *to)
{
        time_t seconds = (time_t)(real_ns / NS_PER_S);
        struct tm tm;
        char text[64];

        if (!gmtime_r(&seconds, &tm) ||
            strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
                return -EINVAL;
        return buf_addf(to, "{\"expiresAt\":\"%s\"}", text);
}

int osb_command_body(const char *command, const struct osb_owner *user, struct buf *to)
{
        struct json_out o = {.to = to};

        write_member(&o, "{", "command", command);
        if (o.failed == 0 && user)
                o.failed =
                        buf_addf(to, ",\"uid\":%" PRIu32 ",\"gid\":%" PRIu32, user->uid, user->gid);
        write_raw(&o, "}");
        return o.failed;
}
