/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/ssh/config.h"
#include "providers/ssh/helpers.h"
#include "providers/ssh/pool.h"
#include "providers/ssh/program.h"
#include "providers/ssh/ssh.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/sftp/sftp.h"

#define UNUSED_NS (60 * NS_PER_S)
#define PATH_SIZE 4096
#define ASK_NS (8 * NS_PER_S) /* below what a command may take to start */

/* ---- birth and end ---- */

static void free_host(struct ssh_host *h)
{
        pool_stop(h->dialer); /* a dial starts a helper shell */
        helpers_done(h); /* their streams are on the connections */
        pool_free(h->dialer);
        if (h->config)
                ssh_config_done(h->config);
        free(h->config);
        free(h->home);
        free(h->base);
        cond_done(&h->changed);
        mutex_done(&h->lock);
        free(h);
}

static struct ssh_host *host_new(struct ssh_provider *ssh, const struct ssh_config *config)
{
        struct ssh_host *h = calloc(1, sizeof(*h));

        if (!h)
                return NULL;
        h->ssh = ssh;
        h->refs = 1;
        list_init(&h->link);
        mutex_init(&h->lock);
        cond_init(&h->changed);
        ssh_config_id(config, h->id);
        h->config = calloc(1, sizeof(*h->config));
        if (!h->config || ssh_config_copy(config, h->config) < 0 || pool_new(h, &h->dialer) < 0 ||
            helpers_init(h) < 0) {
                free_host(h);
                return NULL;
        }
        return h;
}

void host_unref(struct ssh_host *h)
{
        if (!h)
                return;
        mutex_lock(&h->ssh->lock);
        h->refs--;
        h->unused_ns = clock_mono_ns();
        mutex_unlock(&h->ssh->lock);
}

/* `config` NULL: any way to get there. */
static struct ssh_host *find_locked(struct ssh_provider *ssh, const char *id,
                                    const struct ssh_config *config) REQUIRES(ssh->lock)
{
        list_for_each (at, &ssh->hosts) {
                struct ssh_host *h = list_entry(at, struct ssh_host, link);

                if (strcmp(h->id, id) == 0 && (!config || ssh_config_is_same(h->config, config))) {
                        h->refs++;
                        return h;
                }
        }
        return NULL;
}

int host_get(struct ssh_provider *ssh, const struct ssh_config *config, struct ssh_host **ret)
{
        char id[CONFIG_ID_SIZE];
        struct ssh_host *h, *made;

        ssh_config_id(config, id);
        mutex_lock(&ssh->lock);
        h = find_locked(ssh, id, config);
        mutex_unlock(&ssh->lock);
        if (h) {
                *ret = h;
                return 0;
        }
        made = host_new(ssh, config);
        if (!made)
                return -ENOMEM;
        mutex_lock(&ssh->lock);
        h = find_locked(ssh, id, config);
        if (!h)
                list_add_tail(&ssh->hosts, &made->link);
        mutex_unlock(&ssh->lock);
        if (h)
                free_host(made);
        *ret = h ? h : made;
        return 0;
}

/* The next host behind `after` (its reference is given up), with one; NULL: no more. */
static struct ssh_host *next_host(struct ssh_provider *ssh, struct ssh_host *after)
{
        struct ssh_host *next = NULL;

        mutex_lock(&ssh->lock);
        if ((after ? after->link.next : ssh->hosts.next) != &ssh->hosts) {
                next = list_entry(after ? after->link.next : ssh->hosts.next, struct ssh_host,
                                  link);
                next->refs++;
        }
        if (after)
                after->refs--;
        mutex_unlock(&ssh->lock);
        return next;
}

void hosts_tend(struct ssh_provider *ssh)
{
        uint64_t now_ns = clock_mono_ns();
        struct list unused;

        for (struct ssh_host *h = next_host(ssh, NULL); h; h = next_host(ssh, h))
                pool_tend(h->dialer);
        list_init(&unused);
        mutex_lock(&ssh->lock);
        list_for_each_safe (at, next, &ssh->hosts) {
                struct ssh_host *h = list_entry(at, struct ssh_host, link);

                if (h->refs == 0 && now_ns - h->unused_ns > UNUSED_NS) {
                        list_remove(&h->link);
                        list_add_tail(&unused, &h->link);
                }
        }
        mutex_unlock(&ssh->lock);
        list_for_each_safe (at, next, &unused)
                free_host(list_entry(at, struct ssh_host, link));
}

void hosts_free(struct ssh_provider *ssh)
{
        list_for_each_safe (at, next, &ssh->hosts) {
                struct ssh_host *h = list_entry(at, struct ssh_host, link);

                list_remove(&h->link);
                free_host(h);
        }
}

/* ---- records ---- */

static void record_name(const char *id, char *ret, size_t size)
{
        (void)snprintf(ret, size, HOST_RECORD "%s", id); /* it fits */
}

int host_record(struct ssh_host *h, struct call *c)
{
        char name[64];
        int r;

        record_name(h->id, name, sizeof(name));
        r = ssh_config_save(h->config, h->ssh->dir, name);
        return r < 0 ? call_fail_errno(c, r, "%s/%s", h->ssh->path, name) : 0;
}

void host_forget(struct ssh_host *h)
{
        char name[64];

        record_name(h->id, name, sizeof(name));
        mutex_lock(&h->ssh->lock);
        /* Under the lock: a creation takes its reference before it writes the record. */
        if (h->refs == 1 && unlinkat(h->ssh->dir, name, 0) == 0)
                log_debug("ssh", "%s: no sandbox is there any more", h->id);
        mutex_unlock(&h->ssh->lock);
}

/* What a record says. */
static int load(struct ssh_provider *ssh, const char *id, struct ssh_host **ret)
{
        struct ssh_config config;
        char name[64], again[CONFIG_ID_SIZE];
        int r;

        record_name(id, name, sizeof(name));
        r = ssh_config_load(ssh->dir, name, &config);
        if (r < 0)
                return r;
        ssh_config_id(&config, again);
        r = strcmp(id, again) == 0 ? host_get(ssh, &config, ret) : -EBADMSG;
        ssh_config_done(&config);
        return r;
}

static bool is_id(const char *id)
{
        return strlen(id) == CONFIG_ID_SIZE - 1 && id[strspn(id, "0123456789abcdef")] == '\0';
}

int host_find(struct ssh_provider *ssh, const char *id, struct ssh_host **ret)
{
        char section[CONFIG_ID_SIZE];
        struct ssh_host *h;

        if (!is_id(id))
                return -ENOENT;
        ssh_config_id(ssh->section, section);
        if (ssh->section->host && strcmp(section, id) == 0)
                return host_get(ssh, ssh->section, ret);
        mutex_lock(&ssh->lock);
        h = find_locked(ssh, id, NULL);
        mutex_unlock(&ssh->lock);
        if (!h)
                return load(ssh, id, ret);
        *ret = h;
        return 0;
}

/* ---- all of them ---- */

struct hosts {
        struct ssh_host **all;
        size_t count;
};

/* Takes the reference, also on failure; each once. */
static int add_host(struct hosts *to, struct ssh_host *h)
{
        struct ssh_host **all;

        for (size_t i = 0; i < to->count; i++) {
                if (strcmp(to->all[i]->id, h->id) == 0) {
                        host_unref(h);
                        return 0;
                }
        }
        all = reallocarray(to->all, to->count + 1, sizeof(struct ssh_host *));
        if (!all) {
                host_unref(h);
                return -ENOMEM;
        }
        to->all = all;
        all[to->count++] = h;
        return 0;
}

static int add_recorded(struct ssh_provider *ssh, struct hosts *to)
{
        int fd = openat(ssh->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        _cleanup_(closedirp) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *entry;

        if (!dir) {
                r = -errno;
                closep(&fd);
                return r;
        }
        while (r == 0 && (errno = 0, entry = readdir(dir))) {
                struct ssh_host *h;

                if (strncmp(entry->d_name, HOST_RECORD, strlen(HOST_RECORD)) != 0)
                        continue;
                r = host_find(ssh, entry->d_name + strlen(HOST_RECORD), &h);
                if (r == 0)
                        r = add_host(to, h);
                else if (r == -EBADMSG || r == -ENOENT)
                        r = 0; /* not ours, or damaged */
        }
        return r;
}

int host_all(struct ssh_provider *ssh, struct ssh_host ***ret, size_t *ret_count)
{
        struct hosts all = {0};
        struct ssh_host *h;
        int r = 0;

        if (ssh->section->host) {
                r = host_get(ssh, ssh->section, &h);
                if (r == 0)
                        r = add_host(&all, h);
        }
        if (r == 0)
                r = add_recorded(ssh, &all);
        if (r < 0) {
                for (size_t i = 0; i < all.count; i++)
                        host_unref(all.all[i]);
                free(all.all);
                return r;
        }
        *ret = all.all;
        *ret_count = all.count;
        return 0;
}

/* ---- what is known of one ---- */

const char *host_name(const struct ssh_host *h)
{
        return h->config->host;
}

unsigned host_bulk_lanes(const struct ssh_host *h)
{
        return h->config->bulk_lanes;
}

unsigned host_known(struct ssh_host *h)
{
        unsigned can;

        mutex_lock(&h->lock);
        can = h->is_known ? h->can : 0;
        mutex_unlock(&h->lock);
        return can;
}

/* Where a shell was, none that answers is a trouble of the moment. */
static void learn_programs(struct ssh_host *h, unsigned can)
{
        mutex_lock(&h->lock);
        if (can & HOST_SHELL || !(h->can & HOST_SHELL))
                h->can = can;
        h->is_known = true;
        mutex_unlock(&h->lock);
        log_debug("ssh", "%s: %s can 0x%x", h->id, host_name(h), can);
}

int host_learn(struct ssh_host *h, struct sftp *sftp, int can, struct call *c)
{
        char path[PATH_SIZE];
        struct sftp_op op = {
                .type = SFTP_REALPATH, .path = ".", .buffer = path, .size = sizeof(path)};
        _cleanup_(freep) char *home = NULL;
        int r = sftp_run(sftp, c, &op, 1);

        if (r == 0)
                r = op.error;
        if (r == 0 && path[0] != '/')
                r = -EPROTO;
        if (r < 0)
                return call_fail_errno(c, r, "home directory of the account");
        home = strdup(path);
        if (!home)
                return call_fail(c, -ENOMEM, "out of memory");
        mutex_lock(&h->lock);
        if (!h->home)
                h->home = STEAL(home);
        mutex_unlock(&h->lock);
        if (can >= 0)
                learn_programs(h, (unsigned)can);
        else
                log_debug("ssh", "%s: %s: no program has answered", h->id, host_name(h));
        return 0;
}

int host_probe(struct ssh_host *h, struct call *c)
{
        struct ssh_link *link;
        bool is_known;
        unsigned can;
        int r = 0;

        mutex_lock(&h->lock);
        is_known = h->is_known;
        can = h->can;
        mutex_unlock(&h->lock);
        if (is_known)
                return (int)can;
        r = host_link(h, c, HOST_CONTROL, &link);
        if (r < 0)
                return r;
        link_unref(link);
        return (int)host_known(h);
}

struct script_opener {
        struct program_opener opener;
        struct ssh_host *host;
};

static int open_script(struct program_opener *o, struct call *c, const char *command,
                       const struct stream_events *events, struct stream **ret)
{
        return host_open_program(container_of(o, struct script_opener, opener)->host, c, command,
                                 events, ret);
}

/* ---- a probe that had no answer is tried again ---- */

static int open_probe(struct program_opener *o, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret)
{
        return pool_open_program(container_of(o, struct script_opener, opener)->host->dialer, c,
                                 command, events, ret);
}

/* 1: ask. 0: it's known meanwhile; -EAGAIN: somebody else has asked in vain. */
static int begin_asking(struct ssh_host *h, struct call *c)
{
        bool others = false;
        int r = 0;

        mutex_lock(&h->lock);
        while (h->is_asking && r == 0) {
                others = true;
                (void)cond_wait_until(&h->changed, &h->lock, clock_after(50 * NS_PER_MS));
                r = call_check(c);
        }
        if (r == 0 && !h->is_known) {
                r = others ? -EAGAIN : 1;
                h->is_asking |= !others;
        }
        mutex_unlock(&h->lock);
        return r;
}

static int ask_again(struct ssh_host *h, struct call *c)
{
        struct script_opener o = {.opener.open = open_probe, .host = h};
        int can = -EAGAIN, r = begin_asking(h, c);

        if (r > 0) {
                can = program_probe(&o.opener, c, ASK_NS);
                if (can >= 0)
                        learn_programs(h, (unsigned)can);
                mutex_lock(&h->lock);
                h->is_asking = false;
                cond_broadcast(&h->changed);
                mutex_unlock(&h->lock);
                r = can < 0 ? can : 0;
        }
        /* It's no time-out of what the caller wants: that was never sent. */
        if (r == -EAGAIN || r == -ETIMEDOUT)
                return call_fail(c, -EAGAIN,
                                 "%s has not answered a command yet: nothing was started",
                                 host_name(h));
        if (r < 0)
                return c->sentence[0] ? r : call_fail_errno(c, r, "%s", host_name(h));
        return (int)host_known(h);
}

int host_shell(struct ssh_host *h, struct call *c)
{
        int can = host_probe(h, c);
        bool is_known;

        mutex_lock(&h->lock);
        is_known = h->is_known;
        mutex_unlock(&h->lock);
        if (can >= 0 && !is_known)
                can = ask_again(h, c);
        if (can < 0 || can & HOST_SHELL)
                return can;
        return call_fail(c, -EOPNOTSUPP, "%s runs no commands for this account", host_name(h));
}

int host_script(struct ssh_host *h, struct call *c, const char *script, size_t size,
                struct buf *out)
{
        struct script_opener o = {.opener.open = open_script, .host = h};

        return program_script(&o.opener, c, script, size, out);
}

void host_is_back(struct ssh_host *h)
{
        const struct provider_listener *to = &h->ssh->listener;
        char(*ids)[sizeof(((struct box *)NULL)->id)] = NULL;
        size_t count = 0, room = 0;

        mutex_lock(&h->ssh->lock);
        list_for_each (at, &h->ssh->boxes)
                room++;
        ids = calloc(room + 1, sizeof(*ids));
        list_for_each (at, &h->ssh->boxes) {
                struct ssh_box *b = list_entry(at, struct ssh_box, link);

                if (ids && b->host == h)
                        memcpy(ids[count++], b->base.id, sizeof(*ids));
        }
        mutex_unlock(&h->ssh->lock);
        for (size_t i = 0; i < count && to->box_changed; i++)
                to->box_changed(to->ctx, ids[i]);
        free(ids);
}
