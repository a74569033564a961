/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: each option, its bad values, and what mount(8) passes. */

#include "fs/options.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/unit/base/temp.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"

static struct options o;
static struct call c;

/* Parses these words, after the program's name. */
static int parse(const char *const *words)
{
        char *argv[16] = {(char[]){"sbxfs"}};
        int argc = 1, r;

        for (; *words && argc < 15; words++)
                argv[argc++] = strdup(*words);
        options_done(&o);
        call_init(&c, NEVER_NS);
        r = options_parse(&o, argc, argv, &c);
        for (int i = 1; i < 16 && argc > 1; i++) /* getopt has moved them */
                free(argv[i]);
        return r;
}
#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})
#define OPTION(text) PARSE("-o", text, "/m")

static bool says(const char *sentence)
{
        bool does = strcmp(c.sentence, sentence) == 0;

        if (!does)
                (void)fprintf(stderr, "    says: %s\n", c.sentence);
        return does;
}

static void defaults_are_the_documented_ones(void)
{
        CHECK_EQ(PARSE("/m"), 0);
        CHECK_STR(o.mountpoint, "/m");
        CHECK(!o.provider && !o.config_path && !o.state_path && !o.debug_topics && !o.uid_range);
        CHECK_EQ(o.on_unmount, ON_UNMOUNT_KEEP);
        CHECK_EQ(o.drain_ns, 30 * NS_PER_S);
        CHECK_EQ(o.attr_timeout_ns, NS_PER_S);
        CHECK_EQ(o.output_cap, 64 << 20);
        CHECK_EQ(o.max_sandboxes, 64);
        CHECK_EQ(o.allow, 0);
        CHECK(!o.has_raw_symlinks && !o.is_readonly && !o.allow_other && !o.no_exec);
        CHECK(o.uid == (uid_t)-1 && o.gid == (gid_t)-1 && o.umask == 0);
        CHECK(!o.is_foreground && !o.is_debug && !o.wants_help && !o.wants_version);
}

static void flags_and_operands(void)
{
        CHECK_EQ(PARSE("-f", "/m"), 0);
        CHECK(o.is_foreground && !o.is_debug);
        CHECK_EQ(PARSE("/m", "-d"), 0);
        CHECK(o.is_foreground && o.is_debug);
        CHECK_EQ(PARSE("--debug", "/m"), 0);
        CHECK(o.is_debug);
        CHECK_EQ(PARSE("-fd", "-oro", "/m"), 0);
        CHECK(o.is_debug && o.is_readonly);
        CHECK_EQ(PARSE("-h"), 0);
        CHECK(o.wants_help);
        CHECK_EQ(PARSE("--help", "--nonsense"), 0);
        CHECK(o.wants_help);
        CHECK_EQ(PARSE("--version"), 0);
        CHECK(o.wants_version);
        CHECK_EQ(PARSE("-V"), 0);
        CHECK(o.wants_version);
        CHECK_EQ(PARSE("sbxfs#x", "/m", "-o", "rw,dev,suid"), 0); /* as mount.fuse3 calls it */
        CHECK_STR(o.mountpoint, "/m");
        CHECK_EQ(PARSE("--", "-m"), 0);
        CHECK_STR(o.mountpoint, "-m");

        CHECK_EQ(PARSE("-f"), -EINVAL);
        CHECK(says("no mount point; usage: sbxfs [-o opt,...] MOUNTPOINT"));
        CHECK_EQ(PARSE("a", "b", "c"), -EINVAL);
        CHECK(says("too many arguments: c"));
        CHECK_EQ(PARSE("/m", "-o"), -EINVAL);
        CHECK(says("-o takes a value"));
        CHECK_EQ(PARSE("-x", "/m"), -EINVAL);
        CHECK(says("unknown option -x; see sbxfs --help"));
        CHECK_EQ(PARSE("-xf", "/m"), -EINVAL);
        CHECK(says("unknown option -x; see sbxfs --help"));
        CHECK_EQ(PARSE("-f", "-dxf", "/m"), -EINVAL);
        CHECK(says("unknown option -x; see sbxfs --help"));
        CHECK_EQ(PARSE("--nonsense", "/m"), -EINVAL);
        CHECK(says("unknown option --nonsense; see sbxfs --help"));
        CHECK_EQ(PARSE("-f", "--help=x", "/m"), -EINVAL);
        CHECK(says("unknown option --help=x; see sbxfs --help"));
}

static void each_option_is_taken(void)
{
        CHECK_EQ(OPTION("provider=p,config=/c,state=s,uid-range=1:2"), 0);
        CHECK_STR(o.provider, "p");
        CHECK_STR(o.config_path, "/c");
        CHECK_STR(o.state_path, "s");
        CHECK_STR(o.uid_range, "1:2");
        CHECK_EQ(OPTION("provider=p,provider=q"), 0); /* the last counts */
        CHECK_STR(o.provider, "q");
        CHECK_EQ(OPTION("on-unmount=pause"), 0);
        CHECK_EQ(o.on_unmount, ON_UNMOUNT_PAUSE);
        CHECK_EQ(OPTION("on-unmount=destroy"), 0);
        CHECK_EQ(o.on_unmount, ON_UNMOUNT_DESTROY);
        CHECK_EQ(OPTION("on-unmount=destroy,on-unmount=keep"), 0);
        CHECK_EQ(o.on_unmount, ON_UNMOUNT_KEEP);
        CHECK_EQ(OPTION("drain=1m"), 0);
        CHECK_EQ(o.drain_ns, 60 * NS_PER_S);
        CHECK_EQ(OPTION("drain=0"), 0);
        CHECK_EQ(o.drain_ns, 0);
        CHECK_EQ(OPTION("max-sandboxes=0"), 0);
        CHECK_EQ(OPTION("max-sandboxes=1000000"), 0);
        CHECK_EQ(o.max_sandboxes, 1000000);
        CHECK_EQ(OPTION("output-cap=2M"), 0);
        CHECK_EQ(o.output_cap, 2 << 20);
        CHECK_EQ(OPTION("symlinks=raw"), 0);
        CHECK(o.has_raw_symlinks);
        CHECK_EQ(OPTION("debug"), 0);
        CHECK_STR(o.debug_topics, "all");
        CHECK_EQ(OPTION("debug=http:ssh"), 0);
        CHECK_STR(o.debug_topics, "http,ssh");
        CHECK_EQ(OPTION("uid=0,gid=4294967294,umask=027"), 0);
        CHECK(o.uid == 0 && o.gid == 4294967294 && o.umask == 027);
        CHECK_EQ(OPTION("umask=0"), 0);
        CHECK_EQ(OPTION("allow_other,ro,noexec,sync"), 0);
        CHECK(o.allow_other && o.is_readonly && o.no_exec && o.is_sync);
        CHECK_EQ(OPTION("ro,rw,noexec,exec,sync,async"), 0);
        CHECK(!o.is_readonly && !o.no_exec && !o.is_sync);
        CHECK_EQ(PARSE("-o", "allow=net", "-o", "allow=mount:ssh", "/m"), 0); /* they add up */
        CHECK_EQ(o.allow, ALLOW_NET | ALLOW_MOUNT | ALLOW_SSH);
}

static void seconds_have_fractions(void)
{
        CHECK_EQ(OPTION("attr_timeout=1"), 0);
        CHECK_EQ(o.attr_timeout_ns, NS_PER_S);
        CHECK_EQ(OPTION("attr_timeout=1.0"), 0);
        CHECK_EQ(o.attr_timeout_ns, NS_PER_S);
        CHECK_EQ(OPTION("attr_timeout=0"), 0);
        CHECK_EQ(o.attr_timeout_ns, 0);
        CHECK_EQ(OPTION("attr_timeout=0.25"), 0);
        CHECK_EQ(o.attr_timeout_ns, NS_PER_S / 4);
        CHECK_EQ(OPTION("attr_timeout=.5"), 0);
        CHECK_EQ(o.attr_timeout_ns, NS_PER_S / 2);
        CHECK_EQ(OPTION("attr_timeout=0.0000000019"), 0);
        CHECK_EQ(o.attr_timeout_ns, 1);
        CHECK_EQ(OPTION("attr_timeout=500ms"), -EINVAL);
        CHECK_EQ(OPTION("attr_timeout=1.5"), -EINVAL);
        CHECK_EQ(OPTION("attr_timeout=2"), -EINVAL);
        CHECK(says("-o attr_timeout=2: give seconds, at most 1"));
        CHECK_EQ(OPTION("attr_timeout=1."), -EINVAL);
        CHECK_EQ(OPTION("attr_timeout=."), -EINVAL);
        CHECK_EQ(OPTION("attr_timeout=0.5x"), -EINVAL);
        CHECK_EQ(OPTION("attr_timeout=99999999999999999999.0"), -EINVAL);
        CHECK_EQ(OPTION("attr_timeout=-1"), -EINVAL);
}

static void bad_values_say_what_is_good(void)
{
        static const struct {
                const char *option, *sentence;
        } rows[] = {
                {"on-unmount=stop", "-o on-unmount=stop: give keep, pause or destroy"},
                {"drain=soon", "-o drain=soon: give a time, for instance 30s"},
                {"output-cap=1M", "-o output-cap=1M: give a size, at least 2M"},
                {"output-cap=x", "-o output-cap=x: give a size, at least 2M"},
                {"max-sandboxes=1000001",
                 "-o max-sandboxes=1000001: give a number, at most 1000000"},
                {"max-sandboxes=-1", "-o max-sandboxes=-1: give a number, at most 1000000"},
                {"allow=all", "-o allow=all: \"all\" can't be allowed: isolation, net, mount, "
                              "runtime, ssh can"},
                {"allow=mout", "-o allow=mout: \"mout\" can't be allowed; did you mean \"mount\"?"},
                {"symlinks=safe", "-o symlinks=safe: give raw, or leave it out"},
                {"uid=4294967295", "-o uid=4294967295: give a number"},
                {"gid=me", "-o gid=me: give a number"},
                {"umask=8", "-o umask=8: give an octal mode, at most 777"},
                {"umask=1000", "-o umask=1000: give an octal mode, at most 777"},
                {"umask=-1", "-o umask=-1: give an octal mode, at most 777"},
                {"umask=7 ", "-o umask=7 : give an octal mode, at most 777"},
                {"provider", "-o provider takes a value: provider=..."},
                {"provider=", "-o provider=: a value is missing"},
                {"ro=1", "-o ro takes no value"},
                {"allow_othr", "unknown option -o allow_othr; did you mean \"allow_other\"?"},
                {"on_unmount=keep", "unknown option -o on_unmount; did you mean \"on-unmount\"?"},
                {"sshfs_debug", "unknown option -o sshfs_debug"},
                {"ro,,rw,=x", "unknown option -o "},
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                if (!CHECK_EQ(OPTION(rows[i].option), -EINVAL) || !CHECK(says(rows[i].sentence)))
                        (void)fprintf(stderr, "    for: %s\n", rows[i].option);
}

static void commas_separate_and_backslashes_keep(void)
{
        CHECK_EQ(OPTION("state=/a\\,b\\\\c,ro"), 0);
        CHECK_STR(o.state_path, "/a,b\\c");
        CHECK(o.is_readonly);
        CHECK_EQ(OPTION(",ro,,noexec,"), 0);
        CHECK(o.is_readonly && o.no_exec);
        CHECK_EQ(OPTION(""), 0);
        CHECK_EQ(OPTION("state=/a\\"), 0); /* nothing to keep */
        CHECK_STR(o.state_path, "/a\\");
        CHECK_EQ(OPTION("state=a=b"), 0);
        CHECK_STR(o.state_path, "a=b");
}

static void what_fstab_holds_is_passed_over(void)
{
        CHECK_EQ(OPTION("defaults,auto,noauto,user,user=me,nouser,users,owner,group,nofail,_netdev,"
                        "dev,nodev,suid,nosuid,async,atime,noatime,relatime,strictatime,lazytime,"
                        "diratime,nodiratime,default_permissions,silent,loud,comment=x,comment,"
                        "x-systemd.automount,X-mount.mkdir=0700,x-,dirsync,norelatime,"
                        "nostrictatime,nolazytime,nousers"),
                 0);
        CHECK_EQ(OPTION("nodev=1"), -EINVAL);
}

static void the_help_names_every_option(void)
{
        static const char *const words[] = {
                "provider=", "config=",        "state=",        "on-unmount=", "drain=",
                "allow=",    "max-sandboxes=", "attr_timeout=", "output-cap=", "uid-range=",
                "symlinks=", "allow_other",    "uid=",          "gid=",        "umask=",
                "ro,",       "noexec",         "sync",          "debug"};
        char text[8192] = "";
        FILE *f = fmemopen(text, sizeof(text), "w");

        if (!f)
                abort();
        options_print_help(f);
        (void)fclose(f);
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                if (!CHECK(strstr(text, words[i])))
                        (void)fprintf(stderr, "    for: %s\n", words[i]);
}

/* ---- what depends on the system ---- */

static int complete(void)
{
        call_init(&c, NEVER_NS);
        return options_complete(&o, &c);
}

/* A path below the temporary directory. */
static const char *below(const char *name)
{
        static char path[4][128];
        static unsigned next;
        char *to = path[next++ % 4];

        (void)snprintf(to, sizeof(path[0]), "%s/%s", temp_path, name);
        return to;
}

static void write_config(int dir, const char *text)
{
        int fd = openat(dir, "c.ini", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        CHECK_EQ(file_write_all(fd, text, strlen(text)), 0);
        (void)close(fd);
}

/* NULL: not set. This program has one thread. */
static void set_variable(const char *name, const char *value)
{
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
        CHECK_EQ(value ? setenv(name, value, 1) : unsetenv(name), 0);
}

static void paths_are_made_whole(void)
{
        int dir = temp_open();
        char option[300], cwd[4096];

        CHECK_EQ(mkdirat(dir, "m", 0700), 0);
        CHECK_EQ(mkdirat(dir, "real", 0700), 0);
        CHECK_EQ(symlinkat("m", dir, "link"), 0);
        CHECK_EQ(symlinkat("real", dir, "state"), 0);
        set_variable("HOME", below("home"));
        set_variable("XDG_STATE_HOME", NULL);
        set_variable("XDG_CONFIG_HOME", below("xdg"));

        (void)snprintf(option, sizeof(option), "state=%s", below("state//new/deep"));
        CHECK_EQ(PARSE("-o", option, below("link")), 0);
        CHECK_EQ(complete(), 0);
        CHECK_STR(o.mountpoint, below("m"));
        CHECK_STR(o.state_path, below("real/new/deep"));
        CHECK(!o.config_path); /* the default one need not be there */
        CHECK_STR(o.provider, "local");
        CHECK(config_find(&o.config, "local"));

        set_variable("XDG_STATE_HOME", below("xs"));
        CHECK_EQ(PARSE(below("m/")), 0);
        CHECK_EQ(complete(), 0);
        CHECK_STR(o.mountpoint, below("m"));
        CHECK_STR(o.state_path, below("xs/sbxfs"));
        set_variable("XDG_STATE_HOME", "relative"); /* as if it were not set */
        CHECK_EQ(PARSE(below("m")), 0);
        CHECK_EQ(complete(), 0);
        CHECK_STR(o.state_path,
                  geteuid() == 0 ? "/var/lib/sbxfs" : below("home/.local/state/sbxfs"));
        set_variable("XDG_STATE_HOME", NULL);

        CHECK(getcwd(cwd, sizeof(cwd)));
        CHECK_EQ(fchdir(dir), 0);
        CHECK_EQ(PARSE("-o", "state=real/x", "m"), 0);
        CHECK_EQ(complete(), 0);
        CHECK_STR(o.mountpoint, below("m"));
        CHECK_STR(o.state_path, below("real/x"));
        CHECK_EQ(chdir(cwd), 0);

        CHECK_EQ(PARSE(below("none")), 0);
        CHECK_EQ(complete(), -ENOENT);
        CHECK_EQ(PARSE("/"), 0);
        CHECK_EQ(complete(), -EINVAL);
        CHECK(says("/ can't be the mount point"));
        (void)snprintf(option, sizeof(option), "state=%s", below("link/state"));
        CHECK_EQ(PARSE("-o", option, below("m")), 0);
        CHECK_EQ(complete(), -EINVAL); /* by whatever way it leads there */
        CHECK(strstr(c.sentence, "is inside of the mount point"));
        (void)snprintf(option, sizeof(option), "state=%s", below("m2"));
        CHECK_EQ(PARSE("-o", option, below("m")), 0);
        CHECK_EQ(complete(), 0); /* beside it */
        (void)snprintf(option, sizeof(option), "config=%s,state=%s", below("m/c.ini"), below("s"));
        CHECK_EQ(PARSE("-o", option, below("m")), 0);
        CHECK_EQ(complete(), -EINVAL);
        temp_close(dir);
}

static void the_configuration_is_read_with_the_options(void)
{
        int dir = temp_open();
        char option[300];

        CHECK_EQ(mkdirat(dir, "m", 0700), 0);
        write_config(dir, "[big]\nkind=local\nmemory=1G\n");
        (void)snprintf(option, sizeof(option), "config=%s,state=%s,provider=big", below("c.ini"),
                       below("s"));
        CHECK_EQ(PARSE("-o", option, below("m")), 0);
        CHECK_EQ(complete(), 0);
        CHECK_EQ(o.config.count, 2); /* and the one that is built in */
        CHECK_STR(o.provider, "big");
        CHECK_EQ(options_reload(&o, &c), 0);
        write_config(dir, "# the same\n[big]\nkind=local\nmemory=1G\n");
        CHECK_EQ(options_reload(&o, &c), 0);
        write_config(dir, "[big]\nkind=local\nmemory=2G\n");
        CHECK_EQ(options_reload(&o, &c), -EOPNOTSUPP);
        CHECK(strstr(c.sentence, "has changed; that counts from the next mount on"));
        write_config(dir, "[big]\nkind=local\nmemory=none\n");
        CHECK_EQ(options_reload(&o, &c), -EINVAL);
        CHECK(strstr(c.sentence, "c.ini:3: memory=none"));
        CHECK_EQ(PARSE("-o", option, below("m")), 0);
        CHECK_EQ(complete(), -EINVAL);
        CHECK_EQ(unlinkat(dir, "c.ini", 0), 0);
        CHECK_EQ(options_reload(&o, &c), -ENOENT);

        /* One that is named must be there. */
        CHECK_EQ(PARSE("-o", option, below("m")), 0);
        CHECK_EQ(complete(), -ENOENT);
        (void)snprintf(option, sizeof(option), "state=%s,provider=locla", below("s"));
        CHECK_EQ(PARSE("-o", option, below("m")), 0);
        CHECK_EQ(complete(), -EINVAL);
        CHECK(says("-o provider=locla: there is none; did you mean \"local\"?"));
        temp_close(dir);
}

int main(void)
{
        options_init(&o);
        RUN(defaults_are_the_documented_ones);
        RUN(flags_and_operands);
        RUN(each_option_is_taken);
        RUN(seconds_have_fractions);
        RUN(bad_values_say_what_is_good);
        RUN(commas_separate_and_backslashes_keep);
        RUN(what_fstab_holds_is_passed_over);
        RUN(the_help_names_every_option);
        RUN(paths_are_made_whole);
        RUN(the_configuration_is_read_with_the_options);
        options_done(&o);
        return check_result();
}
