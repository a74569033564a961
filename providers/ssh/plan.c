/* SPDX-License-Identifier: Apache-2.0 */
/* From a config to what a dial needs: ~/.ssh/config is asked, passwords are read. */

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/quote.h"
#include "providers/ssh/config.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"

#define PASSWORD_MAX ((size_t)4096)
#define PASSWORD_VARIABLE "SBXFS_SSH_PASSWORD"
#define LOOKUP_SIZE 16384
#define PROXY_MAX ((size_t)32 * 1024)
#define PROXY_TO "[%h]:%p"

/* Who we are. */
struct self {
        struct alias_self names;
        char home[512];
        char user[256];
};

static void look_up(struct self *s)
{
        char data[LOOKUP_SIZE];
        struct passwd entry, *found = NULL;
        const char *home = getenv("HOME"); /* NOLINT(concurrency-mt-unsafe): nothing sets any */

        if (getpwuid_r(geteuid(), &entry, data, sizeof(data), &found) != 0)
                found = NULL;
        if (!home || home[0] != '/')
                home = found ? found->pw_dir : "/";
        (void)snprintf(s->home, sizeof(s->home), "%s", home);
        (void)snprintf(s->user, sizeof(s->user), "%s", found ? found->pw_name : "root");
        s->names = (struct alias_self){s->home, s->user};
}

/* ---- passwords ---- */

static int open_password(const char *path, struct call *c, int *ret)
{
        _cleanup_(closep) int fd = -1;
        _cleanup_(freep) char *real = NULL;
        struct self self;
        struct stat st;
        int r;

        look_up(&self);
        r = alias_expand(path, "", NULL, &self.names, &real);
        if (r < 0)
                return call_fail(c, r, "password_file %s", path);
        fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0 || fstat(fd, &st) < 0)
                return call_fail_errno(c, errno == ENOENT ? -EINVAL : -errno, "password_file %s",
                                       path);
        if (!S_ISREG(st.st_mode))
                return call_fail(c, -EINVAL, "password_file %s: not a file", path);
        if ((st.st_mode & 0077) || (st.st_uid != geteuid() && st.st_uid != 0))
                return call_fail(c, -EPERM,
                                 "password_file %s: others can read it, or it is another's; chmod "
                                 "600",
                                 path);
        *ret = STEAL_FD(fd);
        return 0;
}

int password_check(const char *path, struct call *c)
{
        _cleanup_(closep) int fd = -1;

        return open_password(path, c, &fd);
}

static int set_password(struct ssh_plan *p, const char *text, size_t size, struct call *c)
{
        if (size == 0)
                return 0;
        p->password = strndup(text, size);
        return p->password ? 0 : call_fail(c, -ENOMEM, "out of memory");
}

/* Its first line. */
static int read_password(struct ssh_plan *p, const char *path, struct call *c)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(PASSWORD_MAX);
        _cleanup_(closep) int fd = -1;
        ssize_t n;
        int r = open_password(path, c, &fd);

        if (r < 0)
                return r;
        if (!buf_reserve(&text, PASSWORD_MAX - 1))
                return call_fail(c, -ENOMEM, "out of memory");
        n = file_pread_full(fd, text.data, PASSWORD_MAX - 1, 0);
        if (n < 0)
                return call_fail_errno(c, (int)n, "password_file %s", path);
        text.data[n] = '\0';
        text.size = (size_t)n;
        return set_password(p, text.data, strcspn(text.data, "\r\n"), c);
}

static int add_password(struct ssh_plan *p, const struct ssh_config *config, struct call *c)
{
        const char *value;

        if (!config->may_use_password)
                return 0;
        if (config->password_file)
                return read_password(p, config->password_file, c);
        value = getenv(PASSWORD_VARIABLE); /* NOLINT(concurrency-mt-unsafe): nothing sets any */
        return value ? set_password(p, value, strlen(value), c) : 0;
}

/* ---- proxies ---- */

static int add(struct wordlist *w, const char *text)
{
        return wordlist_add(w, text, strlen(text));
}

static int add_option(struct wordlist *w, const char *key, const char *value)
{
        int r = add(w, key);

        return r < 0 ? r : add(w, value);
}

/* -F, with `~` replaced. */
static int add_config_file(struct wordlist *w, const struct ssh_config *config,
                           const struct alias_self *self)
{
        _cleanup_(freep) char *real = NULL;
        int r;

        if (!config->ssh_config)
                return 0;
        r = alias_expand(config->ssh_config, "", NULL, self, &real);
        return r < 0 ? r : add_option(w, "-F", real);
}

/* [ssh://][USER@]HOST[:PORT], as arguments. */
static int add_destination(struct wordlist *w, const char *text, size_t size)
{
        _cleanup_(freep) char *copy = strndup(text, size);
        char *host = copy, *at, *colon;
        int r = 0;

        if (!copy)
                return -ENOMEM;
        if (strncmp(host, "ssh://", 6) == 0)
                host += 6;
        at = strrchr(host, '@');
        if (at) {
                *at = '\0';
                r = add_option(w, "-l", host);
                host = at + 1;
        }
        colon = strrchr(host, ':');
        if (host[0] == '[') {
                char *close = strchr(host, ']');

                if (!close)
                        return -EINVAL;
                colon = close[1] == ':' ? close + 1 : NULL;
                *close = '\0';
                host++;
        } else if (colon && strchr(host, ':') != colon) {
                colon = NULL; /* a bare IPv6 address */
        }
        if (colon) {
                *colon = '\0';
                if (r == 0)
                        r = add_option(w, "-p", colon + 1);
        }
        if (r == 0 && (host[0] == '\0' || host[0] == '-'))
                r = -EINVAL;
        return r < 0 ? r : add_option(w, "--", host);
}

static int add_expanded(struct wordlist *w, const char *path, const struct alias_self *self)
{
        _cleanup_(freep) char *real = NULL;
        int r = alias_expand(path, "", NULL, self, &real);

        return r < 0 ? r : add(w, real);
}

/* `more`: what stands behind the file. */
static int add_known_hosts(struct wordlist *w, const struct ssh_config *config,
                           const struct alias_self *self, const char *key, const char *more)
{
        _cleanup_(freep) char *known = NULL, *option = NULL;
        int r = alias_expand(config->known_hosts, "", NULL, self, &known);

        if (r < 0)
                return r;
        /* Quoted as ssh_config has it; a quote in it can't be said. */
        if (strchr(known, '"'))
                return -EOPNOTSUPP;
        if (asprintf(&option, "%s=\"%s\"%s", key, known, more) < 0) {
                option = NULL;
                return -ENOMEM;
        }
        return add_option(w, "-o", option);
}

/* The section's for its own jump, beside what ~/.ssh has for that. */
static int add_trust(struct wordlist *w, const struct ssh_config *config,
                     const struct alias_self *self)
{
        int r = 0;

        if (config->identity)
                r = add(w, "-i");
        if (r == 0 && config->identity)
                r = add_expanded(w, config->identity, self);
        if (r == 0 && config->known_hosts)
                r = add_known_hosts(w, config, self, "GlobalKnownHostsFile",
                                    " /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2");
        return r;
}

/* `ssh -W` to the last of them, which gets there through the others. */
static int add_jump(struct wordlist *w, const struct ssh_config *config,
                    const struct alias_self *self, const char *jump, const char *to)
{
        _cleanup_(freep) char *before = NULL;
        const char *last = strrchr(jump, ',');
        int r = add(w, SSH_PROGRAM);

        if (r == 0)
                r = add_option(w, "-o", "BatchMode=yes");
        if (r == 0)
                r = add_option(w, "-o", "StrictHostKeyChecking=yes");
        if (r == 0)
                r = add_option(w, "-o", "ForwardAgent=no");
        if (r == 0)
                r = add_option(w, "-o", "PermitLocalCommand=no");
        if (r == 0)
                r = add_config_file(w, config, self);
        if (r == 0 && jump == config->jump)
                r = add_trust(w, config, self);
        if (r == 0 && last) {
                before = strndup(jump, (size_t)(last - jump));
                r = before ? add_option(w, "-J", before) : -ENOMEM;
        }
        if (r == 0)
                r = add_option(w, "-W", to);
        last = last ? last + 1 : jump;
        return r < 0 ? r : add_destination(w, last, strlen(last));
}

static int add_target_jump(struct ssh_plan *p, const struct ssh_config *config,
                           const struct alias_self *self, const char *jump)
{
        _cleanup_(freep) char *to = NULL;

        if (asprintf(&to, "[%s]:%u", p->target.host, p->target.port) < 0) {
                to = NULL;
                return -ENOMEM;
        }
        return add_jump(&p->proxy, config, self, jump, to);
}

static int add_command(struct ssh_plan *p, const struct alias_self *self)
{
        const struct alias *a = &p->alias;
        const struct alias reached = {.hostname = (char *)(uintptr_t)p->target.host,
                                      .user = p->user,
                                      .port = p->target.port};
        _cleanup_(freep) char *text = NULL, *command = NULL;
        int r = alias_expand(a->proxy_command, a->hostname, &reached, self, &text);

        if (r < 0)
                return r;
        if (asprintf(&command, "exec %s", text) < 0) {
                command = NULL;
                return -ENOMEM;
        }
        r = add_option(&p->proxy, "/bin/sh", "-c");
        return r < 0 ? r : add(&p->proxy, command);
}

static int add_proxy(struct ssh_plan *p, const struct ssh_config *config,
                     const struct alias_self *self, struct call *c)
{
        const char *jump = config->jump ? config->jump : p->alias.proxy_jump;
        int r = 0;

        if (jump && strcmp(jump, "none") != 0)
                r = add_target_jump(p, config, self, jump);
        else if (!config->jump && p->alias.proxy_command && p->alias.passes_fd)
                return call_fail(c, -EOPNOTSUPP,
                                 "ProxyUseFdpass: only transport=openssh can do that");
        else if (!config->jump && p->alias.proxy_command)
                r = add_command(p, self);
        if (r == -EINVAL)
                return call_fail(c, r,
                                 "the way to %s (jump, ProxyJump, ProxyCommand) can't be read",
                                 config->host);
        if (r < 0 || p->proxy.count == 0)
                return r;
        r = alias_environment(&p->proxy_env);
        p->target.proxy = wordlist_get(&p->proxy);
        p->target.proxy_env = wordlist_get(&p->proxy_env);
        return r;
}

/* ---- the rest ---- */

static int add_files(struct ssh_plan *p, const struct ssh_config *config,
                     const struct alias_self *self)
{
        struct ssh_target *t = &p->target;
        int r = 0;

        if (config->identity)
                r = add_expanded(&p->identities, config->identity, self);
        if (r == 0 && config->known_hosts)
                r = add_expanded(&p->known_hosts, config->known_hosts, self);
        if (r == 0 && !config->known_hosts && !p->alias.hostname) {
                r = add_expanded(&p->known_hosts, "~/.ssh/known_hosts", self);
                if (r == 0)
                        r = add(&p->known_hosts, "/etc/ssh/ssh_known_hosts");
        }
        if (p->identities.count > 0)
                t->identities = wordlist_get(&p->identities);
        else if (p->alias.hostname)
                t->identities = wordlist_get(&p->alias.identities);
        t->known_hosts =
                wordlist_get(p->known_hosts.count > 0 ? &p->known_hosts : &p->alias.known_hosts);
        return r;
}

static void add_agent(struct ssh_plan *p, const struct ssh_config *config)
{
        const char *agent = p->alias.agent;

        p->target.uses_agent = config->uses_agent && !(agent && strcmp(agent, "none") == 0);
        if (agent && agent[0] == '$')
                agent = getenv(agent + 1); /* NOLINT(concurrency-mt-unsafe): nothing sets any */
        if (agent && agent[0] == '/')
                p->target.agent_socket = agent;
}

static int ask(const struct ssh_config *config, const struct alias_self *self, struct call *c,
               struct alias *ret)
{
        _cleanup_(freep) char *file = NULL;
        int r = 0;

        if (config->ssh_config && strcmp(config->ssh_config, "none") == 0)
                return 0;
        if (config->ssh_config)
                r = alias_expand(config->ssh_config, "", NULL, self, &file);
        if (r == 0)
                r = alias_ask(config->host, config->user, config->port, file, self, c, ret);
        if (r == -ENOENT)
                return file ? call_fail(c, -EOPNOTSUPP, "ssh_config: there is no %s", SSH_PROGRAM)
                            : 0;
        return r;
}

static int choose_user(const struct ssh_config *config, const struct alias *a, const char *own,
                       char **ret)
{
        *ret = strdup(config->user ? config->user : a->user ? a->user : own);
        return *ret ? 0 : -ENOMEM;
}

int ssh_plan_user(const struct ssh_config *config, struct call *c, char **ret)
{
        struct alias a = {0};
        struct self self;
        int r;

        look_up(&self);
        r = config->user ? 0 : ask(config, &self.names, c, &a);
        if (r == 0)
                r = choose_user(config, &a, self.user, ret);
        alias_done(&a);
        return r;
}

int ssh_plan_make(const struct ssh_config *config, struct call *c, struct ssh_plan *ret)
{
        struct ssh_plan *p = ret;
        struct self self;
        int r;

        *p = (struct ssh_plan){0};
        look_up(&self);
        r = ask(config, &self.names, c, &p->alias);
        if (r == 0)
                r = choose_user(config, &p->alias, self.user, &p->user);
        if (r == 0) {
                p->target = (struct ssh_target){
                        .host = p->alias.hostname ? p->alias.hostname : config->host,
                        .port = config->port    ? config->port
                                : p->alias.port ? p->alias.port
                                                : 22,
                        .host_key_alias = p->alias.host_key_alias,
                        .user = p->user,
                        .hostkey = config->hostkey,
                };
                r = add_files(p, config, &self.names);
        }
        if (r == 0)
                r = add_proxy(p, config, &self.names, c);
        if (r == 0)
                r = add_password(p, config, c);
        if (r < 0) {
                ssh_plan_done(p);
                return r;
        }
        add_agent(p, config);
        p->target.password = p->password;
        return 0;
}

void ssh_plan_done(struct ssh_plan *p)
{
        if (p->password)
                explicit_bzero(p->password, strlen(p->password));
        free(p->password);
        free(p->user);
        wordlist_done(&p->identities);
        wordlist_done(&p->known_hosts);
        wordlist_done(&p->proxy);
        wordlist_done(&p->proxy_env);
        alias_done(&p->alias);
        *p = (struct ssh_plan){0};
}

/* ---- transport=openssh ---- */

static int add_shared(struct wordlist *w, enum openssh_use use, const char *socket)
{
        int r;

        if (!socket || use == OPENSSH_ALONE)
                return add_option(w, "-S", "none");
        r = add_option(w, "-S", socket);
        if (r == 0)
                r = add_option(w, "-o",
                               use == OPENSSH_MASTER ? "ControlMaster=yes" : "ControlMaster=no");
        return r < 0 ? r : add_option(w, "-o", "ControlPersist=no");
}

/* A word for the shell that ProxyCommand is given to, behind the client's own look for %. */
static int add_proxy_word(struct buf *to, const char *word)
{
        _cleanup_(buf_done) struct buf quoted = BUF_INIT(PROXY_MAX);
        int r = quote_add(&quoted, word);

        for (size_t i = 0; r == 0 && i < quoted.size; i++) {
                r = buf_add_char(to, quoted.data[i]);
                if (r == 0 && quoted.data[i] == '%' && strcmp(word, PROXY_TO) != 0)
                        r = buf_add_char(to, '%');
        }
        return r == 0 ? buf_add_char(to, ' ') : r;
}

/* -J takes neither a key nor known hosts. */
static int add_own_jump(struct wordlist *w, const struct ssh_config *config,
                        const struct alias_self *self)
{
        _cleanup_(wordlist_done) struct wordlist words = {0};
        _cleanup_(buf_done) struct buf text = BUF_INIT(PROXY_MAX);
        int r;

        if ((!config->identity && !config->known_hosts) || strcmp(config->jump, "none") == 0)
                return add_option(w, "-J", config->jump);
        r = add_jump(&words, config, self, config->jump, PROXY_TO);
        if (r == 0)
                r = buf_add_str(&text, "ProxyCommand=");
        for (size_t i = 0; r == 0 && i < words.count; i++)
                r = add_proxy_word(&text, words.list[i]);
        return r == 0 ? add_option(w, "-o", buf_str(&text)) : r;
}

static int add_place(struct wordlist *w, const struct ssh_config *config,
                     const struct alias_self *self)
{
        char port[16];
        int r = add_config_file(w, config, self);

        (void)snprintf(port, sizeof(port), "%u", config->port);
        if (r == 0 && config->user)
                r = add_option(w, "-l", config->user);
        if (r == 0 && config->port)
                r = add_option(w, "-p", port);
        if (r == 0 && config->jump)
                r = add_own_jump(w, config, self);
        if (r == 0 && config->identity) {
                r = add(w, "-i");
                if (r == 0)
                        r = add_expanded(w, config->identity, self);
        }
        if (r == 0 && !config->uses_agent)
                r = add_option(w, "-o", "IdentityAgent=none");
        if (r < 0 || !config->known_hosts)
                return r;
        r = add_known_hosts(w, config, self, "UserKnownHostsFile", "");
        return r < 0 ? r : add_option(w, "-o", "GlobalKnownHostsFile=none");
}

int ssh_config_openssh(const struct ssh_config *config, enum openssh_use use, const char *socket,
                       const char *command, struct wordlist *ret)
{
        static const char *const always[] = {"BatchMode=yes",
                                             "StrictHostKeyChecking=yes",
                                             "ForwardAgent=no",
                                             "ForwardX11=no",
                                             "ClearAllForwardings=yes",
                                             "PermitLocalCommand=no",
                                             "RemoteCommand=none",
                                             "RequestTTY=no",
                                             "EscapeChar=none",
                                             "ConnectTimeout=3",
                                             "ServerAliveInterval=5",
                                             "ServerAliveCountMax=2",
                                             "UpdateHostKeys=no",
                                             "LogLevel=ERROR",
                                             "Tunnel=no"};
        struct wordlist w = {0};
        struct self self;
        int r;

        look_up(&self);
        r = add(&w, "ssh");
        for (size_t i = 0; i < sizeof(always) / sizeof(always[0]) && r == 0; i++)
                r = add_option(&w, "-o", always[i]);
        if (r == 0)
                r = add_place(&w, config, &self.names);
        if (r == 0)
                r = add_shared(&w, use, socket);
        if (r == 0 && !command)
                r = add(&w, "-s");
        if (r == 0)
                r = add_option(&w, "--", config->host);
        if (r == 0)
                r = add(&w, command ? command : "sftp");
        if (r < 0)
                wordlist_done(&w);
        else
                *ret = w;
        return r;
}
