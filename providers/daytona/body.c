/* SPDX-License-Identifier: Apache-2.0 */
/* A creation as JSON; see body.h. */

#include "providers/daytona/body.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "providers/daytona/states.h"
#include "providers/remote/settings.h"
#include "providers/remote/write.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"

#define TEXT_MAX 1000
#define GIB (UINT64_C(1) << 30)
#define AMOUNT_MAX 1000000 /* cores, or GiB: what its JSON and ours hold for sure */
#define MINUTE_NS (60 * NS_PER_S)
#define TIMEOUT_MAX_NS (UINT64_C(365) * 86400 * NS_PER_S)

/* ---- checks ---- */

static bool is_given(const struct spec *spec, enum setting s)
{
        return (spec->given & SETTING_BIT(s)) != 0;
}

/* Which of the two; a section's default gives way to what was named. */
static const char *image_of(const struct spec *spec)
{
        if (spec->text[SETTING_SNAPSHOT] && is_given(spec, SETTING_SNAPSHOT) &&
            !is_given(spec, SETTING_IMAGE))
                return NULL;
        return spec->text[SETTING_IMAGE];
}

static uint64_t cores(const struct spec *spec)
{
        return (spec->cpu_milli + 999) / 1000;
}

static uint64_t gibibytes(uint64_t bytes)
{
        return bytes / GIB + (bytes % GIB > 0);
}

/* What a snapshot settles when it is made. */
static int check_machine(const struct spec *spec, struct call *c)
{
        const struct {
                const char *name;
                uint64_t amount;
        } all[] = {
                {"cpu", cores(spec)},
                {"memory", gibibytes(spec->memory)},
                {"disk", gibibytes(spec->disk)},
        };

        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
                if (all[i].amount > AMOUNT_MAX)
                        return call_fail(c, -EINVAL, "%s: that much can't be", all[i].name);
                if (all[i].amount > 0 && !image_of(spec))
                        return call_fail(c, -EOPNOTSUPP,
                                         "Daytona settles %s when a snapshot is made: say image= "
                                         "with it, or make a snapshot and name it with snapshot=",
                                         all[i].name);
        }
        return 0;
}

static int check_origin(const struct spec *spec, struct call *c)
{
        const char *image = spec->text[SETTING_IMAGE], *snapshot = spec->text[SETTING_SNAPSHOT];

        if (image && snapshot && is_given(spec, SETTING_IMAGE) && is_given(spec, SETTING_SNAPSHOT))
                return call_fail(c, -EINVAL, "image or snapshot: one of them");
        /* It becomes a line of a Dockerfile: one word, no more. */
        if (image && (!settings_has_only(image, SETTINGS_ALNUM "-_./:@+") || image[0] == '-'))
                return call_fail(c, -EINVAL, "\"%.80s\" is no name of an image", image);
        if (snapshot &&
            (!settings_has_only(snapshot, SETTINGS_ALNUM "-_./:@+") || snapshot[0] == '-'))
                return call_fail(c, -EINVAL, "\"%.80s\" is no name of a snapshot", snapshot);
        return 0;
}

/* "10.0.0.0/8", or an address alone. */
static bool is_cidr(const char *text)
{
        char address[INET6_ADDRSTRLEN];
        unsigned char bytes[16];
        size_t size = strcspn(text, "/");

        if (size >= sizeof(address))
                return false;
        memcpy(address, text, size);
        address[size] = '\0';
        return inet_pton(AF_INET, address, bytes) == 1 || inet_pton(AF_INET6, address, bytes) == 1;
}

static int check_net(const struct spec *spec, struct call *c)
{
        const char *net = spec->text[SETTING_NET];

        if (net && settings_net_list(net, "deny:"))
                return call_fail(c, -EOPNOTSUPP,
                                 "Daytona can't deny single networks: net=none, or net=allow:...");
        return settings_check_net(spec, SETTINGS_ALNUM "-.*:/,",
                                  "none, all or allow:WHAT[,WHAT...], CIDR or domain", c);
}

int daytona_check(const struct spec *spec, struct call *c)
{
        int r = check_origin(spec, c);

        if (r == 0)
                r = check_machine(spec, c);
        if (r == 0)
                r = check_net(spec, c);
        if (r == 0)
                r = settings_check_places(spec, c);
        if (r == 0)
                r = settings_check_labels(spec, LABEL_PREFIX, TEXT_MAX, c);
        if (r == 0 && spec->timeout_ns > TIMEOUT_MAX_NS)
                r = call_fail(c, -EINVAL, "timeout: that long can't be");
        return r;
}

uint32_t daytona_timeout_min(const struct spec *spec)
{
        return spec->timeout_ns == 0 ? DAYTONA_TIMEOUT_DEFAULT_S / 60
                                     : (uint32_t)((spec->timeout_ns + MINUTE_NS - 1) / MINUTE_NS);
}

void daytona_name(const struct spec *spec, char ret[DAYTONA_NAME_SIZE])
{
        (void)snprintf(ret, DAYTONA_NAME_SIZE, "sbxfs-%s", spec->key);
}

/* ---- writing ---- */

static void number(struct json_out *o, const char *key, uint64_t value)
{
        if (o->failed == 0)
                o->failed = buf_addf(o->to, ",\"%s\":%" PRIu64, key, value);
}

static void put_labels(struct json_out *o, const struct spec *spec)
{
        const char *workdir = spec->text[SETTING_WORKDIR];

        write_raw(o, ",\"labels\":{");
        write_member(o, "", LABEL_KEY, spec->key);
        write_member(o, ",", LABEL_NAME, spec->name);
        write_member(o, ",", LABEL_OWNER, spec->owner);
        if (workdir)
                write_member(o, ",", LABEL_WORKDIR, workdir);
        for (size_t i = 0; i < spec->label_count; i++)
                write_member(o, ",", spec->labels[i].key, spec->labels[i].value);
        write_raw(o, "}");
}

static void put_origin(struct json_out *o, const struct spec *spec)
{
        const char *image = image_of(spec);
        char file[TEXT_MAX];

        if (!image) {
                if (spec->text[SETTING_SNAPSHOT])
                        write_member(o, ",", "snapshot", spec->text[SETTING_SNAPSHOT]);
                return;
        }
        if ((size_t)snprintf(file, sizeof(file), "FROM %s\n", image) >= sizeof(file) &&
            o->failed == 0)
                o->failed = -E2BIG;
        write_raw(o, ",\"buildInfo\":{");
        write_member(o, "", "dockerfileContent", file);
        write_raw(o, "}");
        if (spec->cpu_milli > 0)
                number(o, "cpu", cores(spec));
        if (spec->memory > 0)
                number(o, "memory", gibibytes(spec->memory));
        if (spec->disk > 0)
                number(o, "disk", gibibytes(spec->disk));
}

/* Those of a list that are networks, or those that aren't, with commas between. -E2BIG. */
static int pick(const char *list, bool networks, char *ret, size_t size)
{
        size_t used = 0;

        ret[0] = '\0';
        while (*list) {
                size_t length = strcspn(list, ",");
                char each[256];

                if (length >= sizeof(each) || used + length + 2 > size)
                        return -E2BIG;
                memcpy(each, list, length);
                each[length] = '\0';
                if (length > 0 && is_cidr(each) == networks)
                        used += (size_t)snprintf(
                                ret + used, size - used, "%s%s%s", used > 0 ? "," : "", each,
                                networks && !strchr(each, '/') ? strchr(each, ':') ? "/128" : "/32"
                                                               : "");
                list += length + (list[length] == ',');
        }
        return 0;
}

static void put_net(struct json_out *o, const struct spec *spec)
{
        static const struct {
                const char *key;
                bool networks;
        } lists[] = {{"networkAllowList", true}, {"domainAllowList", false}};
        const char *net = spec->text[SETTING_NET], *list;
        char text[8192];

        if (!net)
                return;
        list = settings_net_list(net, "allow:");
        if (!list) {
                write_raw(o, net[0] == 'n' ? ",\"networkBlockAll\":true"
                                           : ",\"networkBlockAll\":false");
                return;
        }
        for (size_t i = 0; i < 2 && o->failed == 0; i++) {
                o->failed = pick(list, lists[i].networks, text, sizeof(text));
                if (o->failed == 0 && text[0])
                        write_member(o, ",", lists[i].key, text);
        }
}

int daytona_create_body(const struct spec *spec, const char *target, struct buf *to)
{
        struct json_out o = {.to = to};
        char name[DAYTONA_NAME_SIZE];

        daytona_name(spec, name);
        write_member(&o, "{", "name", name);
        put_origin(&o, spec);
        if (spec->text[SETTING_USER])
                write_member(&o, ",", "user", spec->text[SETTING_USER]);
        if (target)
                write_member(&o, ",", "target", target);
        number(&o, "autoStopInterval", daytona_timeout_min(spec));
        write_raw(&o, ",\"autoDeleteInterval\":-1"); /* whoever stops keeps its files */
        put_labels(&o, spec);
        write_pairs(&o, "env", spec->env, spec->env_count);
        put_net(&o, spec);
        write_raw(&o, "}");
        return o.failed;
}
