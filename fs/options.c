/* SPDX-License-Identifier: Apache-2.0 */
/* One table of -o options, each with the function that takes its value. */

#include "fs/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "fs/sandbox/settings.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/names.h"
#include "transport/base/units.h"

#define DRAIN_NS (30 * NS_PER_S)
#define ATTR_TIMEOUT_MAX_NS NS_PER_S
#define OUTPUT_CAP (UINT64_C(64) * 1024 * 1024)
#define OUTPUT_CAP_MIN (UINT64_C(2) * 1024 * 1024) /* the last MiB is kept apart */
#define MAX_SANDBOXES 64
#define MAX_SANDBOXES_LIMIT 1000000 /* serials have 22 bits */

void options_init(struct options *o)
{
        *o = (struct options){
                .drain_ns = DRAIN_NS,
                .attr_timeout_ns = ATTR_TIMEOUT_MAX_NS,
                .output_cap = OUTPUT_CAP,
                .max_sandboxes = MAX_SANDBOXES,
                .uid = (uid_t)-1,
                .gid = (gid_t)-1,
        };
}

void options_done(struct options *o)
{
        free(o->mountpoint);
        free(o->provider);
        free(o->config_path);
        free(o->state_path);
        free(o->debug_topics);
        free(o->uid_range);
        config_done(&o->config);
        options_init(o);
}

/* ---- values ---- */

int options_set_text(char **to, const char *value, struct call *c)
{
        char *copy = strdup(value);

        if (!copy)
                return call_fail(c, -ENOMEM, "out of memory");
        free(*to);
        *to = copy;
        return 0;
}

static int bad_value(struct call *c, const char *option, const char *value, const char *reason)
{
        return call_fail(c, -EINVAL, "-o %s=%s: %s", option, value, reason);
}

static int set_provider(struct options *o, const char *value, struct call *c)
{
        return options_set_text(&o->provider, value, c);
}

static int set_config(struct options *o, const char *value, struct call *c)
{
        return options_set_text(&o->config_path, value, c);
}

static int set_state(struct options *o, const char *value, struct call *c)
{
        return options_set_text(&o->state_path, value, c);
}

static int set_uid_range(struct options *o, const char *value, struct call *c)
{
        return options_set_text(&o->uid_range, value, c); /* checked by the provider */
}

static int set_on_unmount(struct options *o, const char *value, struct call *c)
{
        static const char *const words[] = {"keep", "pause", "destroy"};

        for (int i = 0; i < 3; i++) {
                if (strcmp(value, words[i]) == 0) {
                        o->on_unmount = (enum on_unmount)i;
                        return 0;
                }
        }
        return bad_value(c, "on-unmount", value, "give keep, pause or destroy");
}

static int set_drain(struct options *o, const char *value, struct call *c)
{
        if (units_parse_span(value, &o->drain_ns) < 0)
                return bad_value(c, "drain", value, "give a time, for instance 30s");
        return 0;
}

/* Seconds with a fraction, as other file systems take them, or a span. */
static int parse_seconds(const char *value, uint64_t *ret_ns)
{
        const char *dot = strchr(value, '.');
        uint64_t whole_ns = 0, scale = NS_PER_S;

        if (!dot)
                return units_parse_span(value, ret_ns);
        for (const char *p = value; p < dot; p++) {
                if (*p < '0' || *p > '9' || whole_ns > 9 * NS_PER_S)
                        return -EINVAL;
                whole_ns = whole_ns * 10 + (uint64_t)(*p - '0') * NS_PER_S;
        }
        if (dot[1] == '\0')
                return -EINVAL;
        for (const char *p = dot + 1; *p; p++) {
                if (*p < '0' || *p > '9')
                        return -EINVAL;
                scale /= 10;
                whole_ns += (uint64_t)(*p - '0') * scale;
        }
        *ret_ns = whole_ns;
        return 0;
}

static int set_attr_timeout(struct options *o, const char *value, struct call *c)
{
        uint64_t ns;

        if (parse_seconds(value, &ns) < 0 || ns > ATTR_TIMEOUT_MAX_NS)
                return bad_value(c, "attr_timeout", value, "give seconds, at most 1");
        o->attr_timeout_ns = ns;
        return 0;
}

static int set_output_cap(struct options *o, const char *value, struct call *c)
{
        if (units_parse_size(value, &o->output_cap) < 0 || o->output_cap < OUTPUT_CAP_MIN)
                return bad_value(c, "output-cap", value, "give a size, at least 2M");
        return 0;
}

static int set_max_sandboxes(struct options *o, const char *value, struct call *c)
{
        uint64_t n;

        if (units_parse_count(value, MAX_SANDBOXES_LIMIT, &n) < 0)
                return bad_value(c, "max-sandboxes", value, "give a number, at most 1000000");
        o->max_sandboxes = (unsigned)n;
        return 0;
}

static int set_allow(struct options *o, const char *value, struct call *c)
{
        unsigned allow;
        int r = allow_parse(value, &allow, c);

        if (r < 0)
                return call_wrap(c, r, "-o allow=%s", value);
        o->allow |= allow;
        return 0;
}

static int set_symlinks(struct options *o, const char *value, struct call *c)
{
        if (strcmp(value, "raw") != 0)
                return bad_value(c, "symlinks", value, "give raw, or leave it out");
        o->has_raw_symlinks = true;
        return 0;
}

/* Topics are separated by ':', as ',' separates options. */
static int set_debug(struct options *o, const char *value, struct call *c)
{
        int r = options_set_text(&o->debug_topics, value ? value : "all", c);

        if (r < 0)
                return r;
        for (char *p = o->debug_topics; *p; p++)
                if (*p == ':')
                        *p = ',';
        return 0;
}

/* (uid_t)-1 means "unchanged" to the kernel. */
static int parse_id(const char *option, const char *value, uint32_t *ret, struct call *c)
{
        uint64_t n;

        if (units_parse_count(value, UINT32_MAX - 1, &n) < 0)
                return bad_value(c, option, value, "give a number");
        *ret = (uint32_t)n;
        return 0;
}

static int set_uid(struct options *o, const char *value, struct call *c)
{
        return parse_id("uid", value, &o->uid, c);
}

static int set_gid(struct options *o, const char *value, struct call *c)
{
        return parse_id("gid", value, &o->gid, c);
}

static int set_umask(struct options *o, const char *value, struct call *c)
{
        char *end;
        unsigned long mask;

        errno = 0;
        mask = strtoul(value, &end, 8);
        if (errno != 0 || *value < '0' || *value > '7' || *end != '\0' || mask > 0777)
                return bad_value(c, "umask", value, "give an octal mode, at most 777");
        o->umask = (mode_t)mask;
        return 0;
}

static int set_readonly(struct options *o, const char *value, struct call *c)
{
        (void)value;
        (void)c;
        o->is_readonly = true;
        return 0;
}

static int set_read_write(struct options *o, const char *value, struct call *c)
{
        (void)value;
        (void)c;
        o->is_readonly = false;
        return 0;
}

static int set_sync(struct options *o, const char *value, struct call *c)
{
        (void)value;
        (void)c;
        o->is_sync = true;
        return 0;
}

static int set_async(struct options *o, const char *value, struct call *c)
{
        (void)value;
        (void)c;
        o->is_sync = false;
        return 0;
}

static int set_allow_other(struct options *o, const char *value, struct call *c)
{
        (void)value;
        (void)c;
        o->allow_other = true;
        return 0;
}

static int set_no_exec(struct options *o, const char *value, struct call *c)
{
        (void)value;
        (void)c;
        o->no_exec = true;
        return 0;
}

static int set_exec(struct options *o, const char *value, struct call *c)
{
        (void)value;
        (void)c;
        o->no_exec = false;
        return 0;
}

/* ---- -o ---- */

enum takes { TAKES_NOTHING, TAKES_VALUE, TAKES_EITHER };

static const struct row {
        const char *name;
        enum takes takes;
        int (*set)(struct options *o, const char *value, struct call *c); /* NULL: nothing to do */
} rows[] = {
        {"provider", TAKES_VALUE, set_provider},
        {"config", TAKES_VALUE, set_config},
        {"state", TAKES_VALUE, set_state},
        {"on-unmount", TAKES_VALUE, set_on_unmount},
        {"drain", TAKES_VALUE, set_drain},
        {"attr_timeout", TAKES_VALUE, set_attr_timeout},
        {"allow", TAKES_VALUE, set_allow},
        {"max-sandboxes", TAKES_VALUE, set_max_sandboxes},
        {"uid-range", TAKES_VALUE, set_uid_range},
        {"symlinks", TAKES_VALUE, set_symlinks},
        {"output-cap", TAKES_VALUE, set_output_cap},
        {"debug", TAKES_EITHER, set_debug},
        {"uid", TAKES_VALUE, set_uid},
        {"gid", TAKES_VALUE, set_gid},
        {"umask", TAKES_VALUE, set_umask},
        {"allow_other", TAKES_NOTHING, set_allow_other},
        {"ro", TAKES_NOTHING, set_readonly},
        {"rw", TAKES_NOTHING, set_read_write},
        {"noexec", TAKES_NOTHING, set_no_exec},
        {"exec", TAKES_NOTHING, set_exec},
        {"sync", TAKES_NOTHING, set_sync},
        {"async", TAKES_NOTHING, set_async},
        /* What mount(8), mount.fuse3 and fstab(5) pass, and what holds or doesn't matter here. */
        {"default_permissions", TAKES_NOTHING, NULL},
        {"dev", TAKES_NOTHING, NULL},
        {"nodev", TAKES_NOTHING, NULL},
        {"suid", TAKES_NOTHING, NULL},
        {"nosuid", TAKES_NOTHING, NULL},
        {"dirsync", TAKES_NOTHING, NULL},
        {"atime", TAKES_NOTHING, NULL},
        {"noatime", TAKES_NOTHING, NULL},
        {"diratime", TAKES_NOTHING, NULL},
        {"nodiratime", TAKES_NOTHING, NULL},
        {"relatime", TAKES_NOTHING, NULL},
        {"norelatime", TAKES_NOTHING, NULL},
        {"strictatime", TAKES_NOTHING, NULL},
        {"nostrictatime", TAKES_NOTHING, NULL},
        {"lazytime", TAKES_NOTHING, NULL},
        {"nolazytime", TAKES_NOTHING, NULL},
        {"auto", TAKES_NOTHING, NULL},
        {"noauto", TAKES_NOTHING, NULL},
        {"user", TAKES_EITHER, NULL},
        {"nouser", TAKES_NOTHING, NULL},
        {"users", TAKES_NOTHING, NULL},
        {"nousers", TAKES_NOTHING, NULL},
        {"owner", TAKES_NOTHING, NULL},
        {"group", TAKES_NOTHING, NULL},
        {"nofail", TAKES_NOTHING, NULL},
        {"_netdev", TAKES_NOTHING, NULL},
        {"defaults", TAKES_NOTHING, NULL},
        {"silent", TAKES_NOTHING, NULL},
        {"loud", TAKES_NOTHING, NULL},
        {"comment", TAKES_EITHER, NULL},
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static const struct row *find_row(const char *name)
{
        for (size_t i = 0; i < ROW_COUNT; i++)
                if (strcmp(rows[i].name, name) == 0)
                        return &rows[i];
        return NULL;
}

static int fail_unknown(const char *name, struct call *c)
{
        const char *words[ROW_COUNT + 1], *nearest;

        for (size_t i = 0; i < ROW_COUNT; i++)
                words[i] = rows[i].name;
        words[ROW_COUNT] = NULL;
        nearest = name_nearest(name, words);
        if (nearest)
                return call_fail(c, -EINVAL, "unknown option -o %s; did you mean \"%s\"?", name,
                                 nearest);
        return call_fail(c, -EINVAL, "unknown option -o %s", name);
}

/* One option, "name" or "name=value"; changed in place. */
static int take_option(struct options *o, char *text, struct call *c)
{
        char *value = strchr(text, '=');
        const struct row *row;

        if (*text == '\0' || strncmp(text, "x-", 2) == 0 || strncmp(text, "X-", 2) == 0)
                return 0; /* for others: fstab(5) */
        if (value)
                *value++ = '\0';
        row = find_row(text);
        if (!row)
                return fail_unknown(text, c);
        if (!value && row->takes == TAKES_VALUE)
                return call_fail(c, -EINVAL, "-o %s takes a value: %s=...", row->name, row->name);
        if (value && row->takes == TAKES_NOTHING)
                return call_fail(c, -EINVAL, "-o %s takes no value", row->name);
        if (value && row->takes == TAKES_VALUE && !*value)
                return bad_value(c, row->name, value, "a value is missing");
        return row->set ? row->set(o, value, c) : 0;
}

/* Options are separated by commas; a backslash takes the next character as it is. */
static int take_options(struct options *o, const char *text, struct call *c)
{
        _cleanup_(freep) char *one = malloc(strlen(text) + 1);
        size_t size = 0;
        int r = 0;

        if (!one)
                return call_fail(c, -ENOMEM, "out of memory");
        for (;; text++) {
                if (*text == '\\' && text[1] != '\0') {
                        one[size++] = *++text;
                } else if (*text != ',' && *text != '\0') {
                        one[size++] = *text;
                } else {
                        one[size] = '\0';
                        size = 0;
                        r = take_option(o, one, c);
                        if (r < 0 || *text == '\0')
                                return r;
                }
        }
}

/* ---- the command line ---- */

/* `letter` is unknown, if it isn't one of ours: then, and without one, it is all of `argument`. */
static int fail_argument(const char *argument, int letter, struct call *c)
{
        if (letter != 0 && !strchr("hVd", letter))
                return call_fail(c, -EINVAL, "unknown option -%c; see sbxfs --help", letter);
        return call_fail(c, -EINVAL, "unknown option %s; see sbxfs --help", argument);
}

/* [SOURCE] MOUNTPOINT */
static int take_operands(struct options *o, int count, char *const *operands, struct call *c)
{
        if (count == 0)
                return call_fail(c, -EINVAL,
                                 "no mount point; usage: sbxfs [-o opt,...] MOUNTPOINT");
        if (count > 2)
                return call_fail(c, -EINVAL, "too many arguments: %s", operands[2]);
        return options_set_text(&o->mountpoint, operands[count - 1], c);
}

int options_parse(struct options *o, int argc, char *const *argv, struct call *c)
{
        static const struct option longs[] = {
                {"help", no_argument, NULL, 'h'},
                {"version", no_argument, NULL, 'V'},
                {"debug", no_argument, NULL, 'd'},
                {NULL, 0, NULL, 0},
        };
        int letter, r;

        optind = 0; /* glibc: from the start, also the second time */
        opterr = 0;
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread */
        while ((letter = getopt_long(argc, argv, ":o:fdhV", longs, NULL)) != -1) {
                switch (letter) {
                case 'o':
                        r = take_options(o, optarg, c);
                        if (r < 0)
                                return r;
                        break;
                case 'd':
                        o->is_debug = true;
                        o->is_foreground = true;
                        break;
                case 'f': o->is_foreground = true; break;
                case 'h': o->wants_help = true; return 0;
                case 'V': o->wants_version = true; return 0;
                case ':': return call_fail(c, -EINVAL, "-%c takes a value", optopt);
                default: return fail_argument(argv[optind - 1], optopt, c);
                }
        }
        return take_operands(o, argc - optind, argv + optind, c);
}

void options_print_help(FILE *to)
{
        (void)fputs(
                "usage: sbxfs [-o opt,...] [-f] [-d] [SOURCE] MOUNTPOINT\n"
                "\n"
                "Projects code sandboxes as directories below MOUNTPOINT; its README says how.\n"
                "\n"
                "    -f              stay in the foreground\n"
                "    -d, --debug     the same, and log everything\n"
                "    -h, --help      this text\n"
                "    -V, --version   the version\n"
                "\n"
                "options for -o, separated by commas:\n"
                "    provider=NAME         what mkdir makes (local)\n"
                "    config=FILE           the configuration file\n"
                "    state=DIR             the state directory\n"
                "    on-unmount=WHAT       keep, pause or destroy the sandboxes (keep)\n"
                "    drain=TIME            how long to go on after an unmount (30s)\n"
                "    allow=WORD[:WORD...]  let people ask for: isolation net mount runtime ssh\n"
                "    max-sandboxes=N       how many there may be (64)\n"
                "    attr_timeout=SECONDS  how long attributes may be cached, at most 1 (1)\n"
                "    output-cap=SIZE       what is kept of a command's output, each stream (64M)\n"
                "    uid-range=FIRST:COUNT host uids of sandboxes, when root mounts\n"
                "    symlinks=raw          show the targets of links under fs/ as they are\n"
                "    allow_other           let other users in\n"
                "    uid=N gid=N umask=M   owner and missing permissions of what is under fs/\n"
                "    ro, noexec            as for any mount\n"
                "    sync                  a change under fs/ is sent before it is answered\n"
                "    debug[=TOPIC:...]     log these topics\n"
                "\n"
                "See sbxfs(1).\n",
                to); /* a closed stdout shows in main's exit status */
}
