/* SPDX-License-Identifier: Apache-2.0 */
/* What ssh -G said, what a section and a creation say, and what a marker holds. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/ssh/config.h"
#include "providers/ssh/marker.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

static const struct alias_self self = {.home = "/home/me", .user = "me"};

/* ---- ssh -G ---- */

static int parse(const char *text, struct alias *ret)
{
        return alias_parse(text, strlen(text), "box", &self, ret);
}

static void alias_reads_what_the_client_prints(void)
{
        struct alias a;

        CHECK_EQ(parse("user bob\nhostname 10.0.0.1\nport 2222\nhostkeyalias al\n"
                       "identityagent SSH_AUTH_SOCK\nidentityfile ~/.ssh/a b\n"
                       "identityfile %d/.ssh/%r@%h\nidentityfile ~/.ssh/%C\n"
                       "globalknownhostsfile /etc/ssh/g1 /etc/ssh/g2\n"
                       "userknownhostsfile ~/.ssh/k1 /k2\nproxyjump x@y:1,z\nproxyusefdpass no\n",
                       &a),
                 0);
        CHECK_STR(a.user, "bob");
        CHECK_STR(a.hostname, "10.0.0.1");
        CHECK_EQ(a.port, 2222);
        CHECK_STR(a.host_key_alias, "al");
        CHECK_STR(a.agent, "SSH_AUTH_SOCK");
        CHECK_STR(a.proxy_jump, "x@y:1,z");
        CHECK(!a.proxy_command && !a.passes_fd);
        CHECK_EQ(a.identities.count, 2); /* %C isn't known */
        CHECK_STR(a.identities.list[0], "/home/me/.ssh/a b");
        CHECK_STR(a.identities.list[1], "/home/me/.ssh/bob@10.0.0.1");
        CHECK_EQ(a.known_hosts.count, 6); /* two lines that may be one name each */
        CHECK_STR(a.known_hosts.list[0], "/home/me/.ssh/k1 /k2");
        CHECK_STR(a.known_hosts.list[1], "/home/me/.ssh/k1");
        CHECK_STR(a.known_hosts.list[5], "/etc/ssh/g2");
        alias_done(&a);
}

static void alias_passes_over_none_and_what_it_does_not_know(void)
{
        struct alias a;

        CHECK_EQ(parse("host box\nhostname h\nport 22\nproxyjump none\nproxycommand none\n"
                       "identityfile none\nuserknownhostsfile none\nhostkeyalias none\n"
                       "forwardagent yes\nlocalcommand rm -rf /\nodd\n\n",
                       &a),
                 0);
        CHECK(!a.proxy_jump && !a.proxy_command && !a.host_key_alias);
        CHECK_EQ(a.identities.count, 0);
        CHECK_EQ(a.known_hosts.count, 0);
        CHECK(wordlist_get(&a.identities)[0] == NULL);
        alias_done(&a);
        CHECK_EQ(parse("hostname h\nport 22\nproxycommand nc \"%h\" %p\nproxyusefdpass yes", &a),
                 0);
        CHECK_STR(a.proxy_command, "nc \"%h\" %p");
        CHECK(a.passes_fd);
        alias_done(&a);
}

static void alias_refuses_what_is_no_answer(void)
{
        static const char *const bad[] = {"",
                                          "\n\n",
                                          "hostname\n",
                                          "hostname h\n",
                                          "port 22\n",
                                          "hostname h\nport 0\n",
                                          "hostname h\nport 65536\n",
                                          "hostname h\nport -1\n"};
        struct alias a;
        char many[8192];
        size_t n = 0;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                CHECK_EQ(parse(bad[i], &a), -EPROTO);
        while (n + 20 < sizeof(many))
                n += (size_t)snprintf(many + n, sizeof(many) - n, "identityfile /x\n");
        CHECK_EQ(parse(many, &a), -E2BIG);
}

static char *expand(const char *text)
{
        const struct alias a = {.hostname = (char[]){"h"}, .user = (char[]){"u"}, .port = 7};
        char *ret = NULL;

        return alias_expand(text, "box", &a, &self, &ret) == 0 ? ret : NULL;
}

static void check_expanded(const char *text, const char *expected)
{
        char *got = expand(text);

        CHECK_STR(got ? got : "-", expected);
        free(got);
}

static void expand_replaces_what_it_knows(void)
{
        check_expanded("~/x", "/home/me/x");
        check_expanded("~", "/home/me");
        check_expanded("~you/x", "~you/x");
        check_expanded("a~/%%%h-%n-%p-%r-%u-%d", "a~/%h-box-7-u-me-/home/me");
        check_expanded("%C", "-");
        check_expanded("x%", "-");
}

/* ---- sections and creations ---- */

static struct pair pairs[16];

static struct provider_config config_with(const char *const words[])
{
        struct provider_config ret = {.pairs = pairs};

        for (size_t i = 0; words[i]; i += 2)
                pairs[ret.pair_count++] =
                        (struct pair){(char *)(uintptr_t)words[i], (char *)(uintptr_t)words[i + 1]};
        return ret;
}

static int section(const char *const words[], struct ssh_config *ret)
{
        const struct provider_config from = config_with(words);
        struct call c;

        call_init(&c, NEVER_NS);
        return ssh_config_of_section(&from, &c, ret);
}

static int named(const struct ssh_config *of, enum setting key, const char *value, unsigned allow,
                 struct ssh_config *ret)
{
        struct spec spec;
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        spec_init(&spec);
        if (value)
                spec.text[key] = strdup(value);
        r = ssh_config_of_spec(of, &spec, allow, &c, ret);
        spec_done(&spec);
        return r;
}

static void section_is_checked(void)
{
        static const char *const good[] = {"host",  "box",  "port",        "2222", "user",
                                           "bob",   "base", "~/boxes//",   "root", "/srv/x/",
                                           "agent", "no",   "connections", "2",    NULL};
        static const char *const bad[][2] = {{"host", "-x"},       {"host", "a/b"},
                                             {"user", "a b"},      {"port", "x"},
                                             {"base", "a/../b"},   {"base", "/"},
                                             {"base", "~x"},       {"root", ""},
                                             {"identity", "x"},    {"hostkey", "SHA256:short"},
                                             {"jump", "a,-oX"},    {"transport", "x"},
                                             {"connections", "0"}, {"agent", "1"},
                                             {"what", "x"}};
        struct ssh_config config;

        CHECK_EQ(section(good, &config), 0);
        CHECK_STR(config.host, "box");
        CHECK_EQ(config.port, 2222);
        CHECK_STR(config.base, "boxes");
        CHECK_STR(config.root, "/srv/x");
        CHECK(!config.uses_agent && config.may_use_password);
        CHECK_EQ(config.bulk_lanes, 2);
        ssh_config_done(&config);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                const char *const words[] = {bad[i][0], bad[i][1], NULL};

                CHECK_EQ(section(words, &config), -EINVAL);
        }
}

static void creation_goes_over_the_section(void)
{
        static const char *const words[] = {"host", "box",  "user", "bob", "jump",
                                            "gate", "root", "/srv", NULL};
        struct ssh_config of, config;
        char one[CONFIG_ID_SIZE], two[CONFIG_ID_SIZE];

        CHECK_EQ(section(words, &of), 0);
        CHECK_EQ(named(&of, SETTING_ROOT, "/srv/y", 0, &config), 0);
        CHECK_STR(config.root, "/srv/y");
        CHECK(config.may_use_password);
        ssh_config_id(&of, one);
        ssh_config_id(&config, two);
        CHECK_STR(one, two);
        ssh_config_done(&config);

        /* another host is another place, and none of the section's ways lead there */
        CHECK_EQ(named(&of, SETTING_HOST, "else", ALLOW_SSH, &config), 0);
        CHECK_STR(config.host, "else");
        CHECK(!config.user && !config.jump && !config.root && !config.may_use_password);
        ssh_config_id(&config, two);
        CHECK(strcmp(one, two) != 0);
        ssh_config_done(&config);

        CHECK_EQ(named(&of, SETTING_KNOWN_HOSTS, "/tmp/mine", ALLOW_SSH, &config), 0);
        CHECK(!config.may_use_password && !ssh_config_is_same(&of, &config));
        ssh_config_done(&config);
        CHECK_EQ(named(&of, SETTING_USER, "root", 0, &config), -EPERM);
        CHECK_EQ(named(&of, SETTING_HOST, "-x", ALLOW_SSH, &config), -EINVAL);
        ssh_config_done(&of);

        CHECK_EQ(section((const char *const[]){NULL}, &of), 0);
        CHECK_EQ(named(&of, SETTING_HOST, NULL, ALLOW_SSH, &config), -EINVAL);
        CHECK_EQ(named(&of, SETTING_HOST, "h", ALLOW_SSH, &config), 0);
        CHECK(config.may_use_password); /* the operator allows whatever host is named */
        ssh_config_done(&config);
        ssh_config_done(&of);
}

static void ids_tell_places_apart(void)
{
        static const char *const all[][9] = {{"host", "a", NULL},
                                             {"host", "a", "user", "b", NULL},
                                             {"host", "ab", NULL},
                                             {"host", "a", "jump", "b", NULL},
                                             {"host", "a", "base", "b", NULL},
                                             {"host", "a", "port", "22", NULL}};
        char ids[6][CONFIG_ID_SIZE];

        for (size_t i = 0; i < 6; i++) {
                struct ssh_config config;

                CHECK_EQ(section(all[i], &config), 0);
                ssh_config_id(&config, ids[i]);
                ssh_config_done(&config);
                for (size_t k = 0; k < i; k++)
                        CHECK(strcmp(ids[i], ids[k]) != 0);
        }
}

static bool has(const struct wordlist *w, const char *word)
{
        for (size_t i = 0; i < w->count; i++)
                if (strcmp(w->list[i], word) == 0)
                        return true;
        return false;
}

static void openssh_gets_only_what_is_said(void)
{
        static const char *const words[] = {"host", "box",         "user", "bob", "port",
                                            "7",    "known_hosts", "/k h", NULL};
        struct ssh_config config;
        struct wordlist argv;

        CHECK_EQ(section(words, &config), 0);
        CHECK_EQ(ssh_config_openssh(&config, OPENSSH_SHARED, "/s", "exec sh", &argv), 0);
        CHECK_STR(argv.list[argv.count - 3], "--");
        CHECK_STR(argv.list[argv.count - 2], "box");
        CHECK_STR(argv.list[argv.count - 1], "exec sh");
        CHECK(has(&argv, "BatchMode=yes") && has(&argv, "ForwardAgent=no"));
        CHECK(has(&argv, "UserKnownHostsFile=\"/k h\"") && has(&argv, "ControlMaster=no"));
        CHECK(!has(&argv, "-s"));
        wordlist_done(&argv);
        CHECK_EQ(ssh_config_openssh(&config, OPENSSH_ALONE, NULL, NULL, &argv), 0);
        CHECK(has(&argv, "-s") && has(&argv, "none"));
        CHECK_STR(argv.list[argv.count - 1], "sftp");
        wordlist_done(&argv);
        ssh_config_done(&config);
}

static void openssh_jumps_with_the_sections_key(void)
{
        static const char *const words[] = {"host", "box",      "known_hosts", "/k", "jump",
                                            "g",    "identity", "/i %%%%",     NULL};
        static const char *const none[] = {"host", "box", "identity", "/i", "jump", "none", NULL};
        struct ssh_config config;
        struct wordlist argv;
        const char *proxy = NULL;

        CHECK_EQ(section(words, &config), 0);
        CHECK_EQ(ssh_config_openssh(&config, OPENSSH_ALONE, NULL, "exec sh", &argv), 0);
        for (size_t i = 0; i < argv.count; i++)
                if (strncmp(argv.list[i], "ProxyCommand=", 13) == 0)
                        proxy = argv.list[i];
        CHECK(!has(&argv, "-J") && proxy && strstr(proxy, "'-W' '[%h]:%p'"));
        CHECK(proxy && strstr(proxy, "'-i' '/i %%%%'")); /* which the client halves */
        CHECK(proxy && strstr(proxy, "'GlobalKnownHostsFile=\"/k\" /etc/ssh/ssh_known_hosts"));
        wordlist_done(&argv);
        ssh_config_done(&config);
        CHECK_EQ(section(none, &config), 0);
        CHECK_EQ(ssh_config_openssh(&config, OPENSSH_ALONE, NULL, "exec sh", &argv), 0);
        CHECK(has(&argv, "-J") && has(&argv, "none"));
        wordlist_done(&argv);
        ssh_config_done(&config);
}

/* ---- markers, quotes ---- */

static void marker_comes_back(void)
{
        struct buf text = BUF_INIT(MARKER_MAX);
        struct pair label = {(char[]){"a/b"}, (char[]){"c\n"}};
        struct spec spec = {.key = "k1",
                            .name = "web",
                            .owner = "me",
                            .timeout_ns = 5,
                            .labels = &label,
                            .label_count = 1};
        struct marker m;

        CHECK_EQ(marker_format(&spec, "/a b\n", &text), 0);
        CHECK_EQ(marker_parse(buf_str(&text), text.size, &m), 0);
        CHECK_STR(m.key, "k1");
        CHECK_STR(m.name, "web");
        CHECK_STR(m.owner, "me");
        CHECK_STR(m.root, "/a b\n");
        CHECK_EQ(m.timeout_ns, 5);
        CHECK(m.created_real_ns > 0);
        marker_done(&m);
        for (size_t size = 0; size < text.size; size++)
                CHECK(marker_parse(buf_str(&text), size, &m) < 0);
        buf_done(&text);
        text = BUF_INIT(MARKER_MAX);
        CHECK_EQ(marker_format(&spec, "not absolute", &text), 0);
        CHECK_EQ(marker_parse(buf_str(&text), text.size, &m), -EBADMSG);
        buf_done(&text);
}

static void quotes_are_one_word(void)
{
        static const char *const values[] = {"", "a", "it's", "''", "$(x) `y` \\ \" \n *"};
        struct buf text = BUF_INIT(4096);

        CHECK_EQ(quote_addf(&text, "x=%s 100%% %s\n", "it's", ""), 0);
        CHECK_STR(buf_str(&text), "x='it'\\''s' 100% ''\n");
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
                char got[256] = "";
                FILE *pipe;

                buf_clear(&text);
                CHECK_EQ(quote_addf(&text, "printf %%s %s", values[i]), 0);
                pipe = popen(buf_str(&text), "r");
                got[fread(got, 1, sizeof(got) - 1, pipe)] = '\0';
                CHECK_EQ(pclose(pipe), 0);
                CHECK_STR(got, values[i]);
        }
        buf_done(&text);
        text = BUF_INIT(8);
        CHECK_EQ(quote_add(&text, "too long for it"), -E2BIG);
        CHECK_EQ(text.size, 0);
        buf_done(&text);
}

int main(void)
{
        RUN(alias_reads_what_the_client_prints);
        RUN(alias_passes_over_none_and_what_it_does_not_know);
        RUN(alias_refuses_what_is_no_answer);
        RUN(expand_replaces_what_it_knows);
        RUN(section_is_checked);
        RUN(creation_goes_over_the_section);
        RUN(ids_tell_places_apart);
        RUN(openssh_gets_only_what_is_said);
        RUN(openssh_jumps_with_the_sections_key);
        RUN(marker_comes_back);
        RUN(quotes_are_one_word);
        return check_result();
}
