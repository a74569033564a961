/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox: made, found again, looked at. */

#include "providers/ssh/box.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/config.h"
#include "providers/ssh/host.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/sftp/batch.h"

#define PATH_SIZE 4096

/* ---- birth and end ---- */

static bool is_key(const char *key)
{
        return key[0] && strlen(key) < sizeof(((struct ssh_box *)NULL)->key) &&
               key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789")] == '\0';
}

static void paths_free(struct ssh_paths *p)
{
        if (p) {
                free(p->dir);
                free(p->work);
                free(p->run);
        }
        free(p);
}

/* Takes the host's reference, also on failure. */
static struct ssh_box *box_new(struct ssh_provider *ssh, struct ssh_host *h, const char *key,
                               const char *owner)
{
        struct ssh_box *b = calloc(1, sizeof(*b));

        if (!b) {
                host_unref(h);
                return NULL;
        }
        b->base.provider = &ssh->base;
        b->ssh = ssh;
        b->host = h;
        b->state = BOX_UNKNOWN;
        (void)snprintf(b->key, sizeof(b->key), "%s", key); /* both checked */
        (void)snprintf(b->base.id, sizeof(b->base.id), "%s.%s", key, h->id);
        (void)snprintf(b->owner, sizeof(b->owner), "%s", owner);
        mutex_init(&b->lock);
        cond_init(&b->changed);
        mutex_lock(&ssh->lock);
        list_add_tail(&ssh->boxes, &b->link);
        mutex_unlock(&ssh->lock);
        return b;
}

void ssh_box_release(struct box *box)
{
        struct ssh_box *b = ssh_box_of(box);

        ssh_execs_done(b);
        ssh_files_done(b);
        mutex_lock(&b->ssh->lock);
        list_remove(&b->link);
        mutex_unlock(&b->ssh->lock);
        host_unref(b->host);
        paths_free(b->paths);
        cond_done(&b->changed);
        mutex_done(&b->lock);
        free(b);
}

bool box_is_known(struct ssh_provider *ssh, const char *key)
{
        bool is_known = false;

        mutex_lock(&ssh->lock);
        list_for_each (at, &ssh->boxes)
                is_known |= strcmp(list_entry(at, struct ssh_box, link)->key, key) == 0;
        mutex_unlock(&ssh->lock);
        return is_known;
}

void box_set_state(struct ssh_box *b, enum box_state state)
{
        mutex_lock(&b->lock);
        b->state = state;
        mutex_unlock(&b->lock);
}

/* ---- where it is ---- */

static struct ssh_paths *paths_new(const char *base, const char *key, const char *root)
{
        struct ssh_paths *p = calloc(1, sizeof(*p));
        int n = 0;

        if (!p)
                return NULL;
        if (asprintf(&p->dir, "%s/%s", base, key) < 0)
                p->dir = NULL;
        if (asprintf(&p->run, "%s/%s/run", base, key) < 0)
                p->run = NULL;
        if (root)
                p->work = strdup(root);
        else
                n = asprintf(&p->work, "%s/%s/work", base, key);
        if (n < 0)
                p->work = NULL;
        if (!p->dir || !p->run || !p->work) {
                paths_free(p);
                return NULL;
        }
        return p;
}

static int set_paths(struct ssh_box *b, const char *base, const char *root)
{
        struct ssh_paths *p = paths_new(base, b->key, root);

        if (!p)
                return -ENOMEM;
        mutex_lock(&b->lock);
        if (!b->paths)
                b->paths = STEAL(p);
        mutex_unlock(&b->lock);
        paths_free(p);
        return 0;
}

const struct ssh_paths *ssh_box_known_paths(struct ssh_box *b)
{
        const struct ssh_paths *p;

        mutex_lock(&b->lock);
        p = b->paths;
        mutex_unlock(&b->lock);
        return p;
}

int box_check_owner(struct ssh_box *b, const struct seen *seen, struct call *c)
{
        bool is_ours;

        mutex_lock(&b->lock);
        if (b->owner[0] == '\0') /* adopted: from now on this one's */
                memcpy(b->owner, seen->marker.owner, sizeof(b->owner));
        is_ours =
                strcmp(seen->marker.key, b->key) == 0 && strcmp(seen->marker.owner, b->owner) == 0;
        mutex_unlock(&b->lock);
        return is_ours ? 0
                       : call_fail(c, -EPERM, "%s on %s: the marker says that it is another's",
                                   b->key, host_name(b->host));
}

/* What was seen becomes what we know; 0 when it is a sandbox and ours. */
static int take_seen(struct ssh_box *b, const char *base, const struct seen *seen, struct call *c)
{
        const char *raw;
        int r;

        switch (seen->kind) {
        case SEEN_MISSING:
                box_set_state(b, BOX_GONE);
                return call_fail(c, -ENODEV, "%s/%s isn't on %s any more", base, b->key,
                                 host_name(b->host));
        case SEEN_UNMARKED:
        case SEEN_HALF:
                return call_fail(c, -ENODEV, "%s/%s on %s is no whole sandbox", base, b->key,
                                 host_name(b->host));
        case SEEN_MARKED: break;
        }
        r = box_check_owner(b, seen, c);
        if (r == 0)
                r = set_paths(b, base, seen->marker.root);
        if (r < 0)
                return r;
        mutex_lock(&b->lock);
        if (!b->is_changing)
                b->state = workspace_state(seen->word, &raw);
        mutex_unlock(&b->lock);
        return 0;
}

/* Look there. *ret is to be done with, on success. */
static int look(struct ssh_box *b, struct call *c, char **ret_base, struct seen *ret)
{
        struct ssh_link *l = NULL;
        int r = host_link(b->host, c, HOST_CONTROL, &l);

        if (r < 0)
                return r;
        r = workspace_base(b->host, l, c, false, ret_base);
        if (r == -ENOENT) {
                *ret_base = strdup("the base directory");
                *ret = (struct seen){.kind = SEEN_MISSING};
                r = *ret_base ? 0 : -ENOMEM;
        } else if (r == 0) {
                r = workspace_look(l, c, *ret_base, b->key, ret);
        }
        link_unref(l);
        return r;
}

int ssh_box_paths(struct ssh_box *b, struct call *c, const struct ssh_paths **ret)
{
        const struct ssh_paths *known = ssh_box_known_paths(b);
        _cleanup_(freep) char *base = NULL;
        struct seen seen = {0};
        int r;

        if (!known) {
                r = look(b, c, &base, &seen);
                if (r < 0)
                        return r;
                r = take_seen(b, base, &seen, c);
                seen_done(&seen);
                if (r < 0)
                        return r;
                known = ssh_box_known_paths(b);
        }
        *ret = known;
        return 0;
}

int ssh_box_check_runs(struct ssh_box *b, struct call *c)
{
        const struct ssh_paths *p;
        enum box_state state;
        int r = ssh_box_paths(b, c, &p); /* the first time, with what it is */

        if (r < 0)
                return r;
        mutex_lock(&b->lock);
        state = b->state;
        mutex_unlock(&b->lock);
        if (state == BOX_GONE || state == BOX_DESTROYING)
                return call_fail(c, -ENODEV, "the sandbox is gone");
        if (state == BOX_RUNNING || state == BOX_UNKNOWN || state == BOX_STARTING ||
            state == BOX_RESUMING)
                return 0;
        return call_fail(c, -EHOSTDOWN, "the sandbox is %s", box_state_name(state));
}

void ssh_box_missed(struct ssh_box *b)
{
        const struct provider_listener *to = &b->ssh->listener;

        if (to->box_changed)
                to->box_changed(to->ctx, b->base.id);
}

int ssh_workdir(struct box *box, struct call *c, char *ret, size_t size)
{
        const struct ssh_paths *p = ssh_box_known_paths(ssh_box_of(box));

        if (!p)
                return call_fail(c, -EINPROGRESS, "the host was not reached yet");
        if (strlen(p->work) >= size)
                return call_fail(c, -ENAMETOOLONG, "the working directory's path is too long");
        (void)snprintf(ret, size, "%s", p->work); /* it fits */
        return 0;
}

/* ---- state ---- */

static const char *const seen_words[] = {[SEEN_MARKED] = "workspace",
                                         [SEEN_HALF] = "half",
                                         [SEEN_UNMARKED] = "unmarked",
                                         [SEEN_MISSING] = "missing"};

static void describe(struct ssh_box *b, const char *base, const struct seen *seen, struct call *c,
                     struct box_status *ret)
{
        const char *raw = seen_words[seen->kind];
        int r = take_seen(b, base, seen, c);

        if (r == 0) {
                mutex_lock(&b->lock);
                ret->state = b->state;
                mutex_unlock(&b->lock);
                (void)workspace_state(seen->word, &raw);
        } else if (seen->kind == SEEN_MISSING) {
                ret->state = BOX_GONE;
        } else {
                ret->state = BOX_ERROR;
                if (r == -EPERM)
                        raw = "foreign";
                (void)snprintf(ret->sentence, sizeof(ret->sentence), "%.255s", c->sentence);
        }
        (void)snprintf(ret->raw, sizeof(ret->raw), "%s", raw);
        c->sentence[0] = '\0';
}

int ssh_box_state(struct box *box, struct call *c, struct box_status *ret)
{
        struct ssh_box *b = ssh_box_of(box);
        _cleanup_(freep) char *base = NULL;
        struct seen seen = {0};
        int r = look(b, c, &base, &seen);

        if (r < 0)
                return r;
        *ret = (struct box_status){0};
        describe(b, base, &seen, c, ret);
        seen_done(&seen);
        return 0;
}

/* ---- create ---- */

/* root=: a directory that is there, as an absolute path without links. */
static int find_root(struct ssh_link *l, struct call *c, const char *root, char **ret)
{
        char real[PATH_SIZE];
        struct stat st = {0};
        int r = sftp_realpath(l->sftp, c, root, real, sizeof(real));

        if (r == 0)
                r = remote_stat(l, c, real, &st);
        if (r == 0 && !S_ISDIR(st.st_mode))
                r = -ENOTDIR;
        if (r < 0)
                return call_fail_errno(c, r, "root %s", root);
        *ret = strdup(real);
        return *ret ? 0 : call_fail(c, -ENOMEM, "out of memory");
}

/* The marker by its other name first: from then on it is known whose this is. */
static int fill(struct ssh_box *b, struct ssh_link *l, struct call *c, const struct spec *spec,
                const char *base, const char *root)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(MARKER_MAX);
        _cleanup_(buf_wipe) struct buf env = BUF_INIT(16 << 20);
        struct ssh_paths *p = paths_new(base, b->key, root);
        char half[PATH_SIZE], marker[PATH_SIZE], env_path[PATH_SIZE];
        int r = p ? 0 : -ENOMEM;

        if (r == 0)
                r = marker_format(spec, root, &text);
        if (r == 0)
                r = marker_env(spec, &env);
        if (r == 0 && strlen(p->dir) + 32 > PATH_SIZE)
                r = -ENAMETOOLONG;
        if (r == 0) {
                (void)snprintf(half, sizeof(half), "%s/" MARKER_HALF, p->dir);
                (void)snprintf(marker, sizeof(marker), "%s/" MARKER, p->dir);
                (void)snprintf(env_path, sizeof(env_path), "%s/" ENV_FILE, p->dir);
                r = remote_mkdir(l, c, p->dir, 0700);
        }
        if (r == 0)
                r = remote_write(l, c, half, text.data, text.size);
        if (r == 0)
                r = remote_mkdir(l, c, p->run, 0700);
        if (r == 0 && !root)
                r = remote_mkdir(l, c, p->work, 0755);
        if (r == 0 && env.size > 0)
                r = remote_write(l, c, env_path, env.data, env.size);
        if (r == 0)
                r = sftp_rename(l->sftp, c, half, marker, true);
        paths_free(p);
        return r;
}

static int make(struct ssh_box *b, struct ssh_link *l, struct call *c, const struct spec *spec,
                const char *base, const char *root)
{
        struct seen seen = {0};
        int r = workspace_look(l, c, base, b->key, &seen);

        if (r < 0)
                return r;
        if (seen.kind == SEEN_MARKED) {
                /* A former try of ours got that far. */
                r = box_check_owner(b, &seen, c);
                r = r == -EPERM ? -EEXIST : r;
        } else if (seen.kind == SEEN_HALF && box_check_owner(b, &seen, c) < 0) {
                r = -EEXIST;
        } else {
                r = fill(b, l, c, spec, base, root);
                if (r < 0)
                        r = call_fail_errno(c, r, "%s/%s on %s", base, b->key, host_name(b->host));
        }
        seen_done(&seen);
        return r;
}

/* What can't be finished goes: true, it has. If that fails, too, the sweep finds it. */
static bool give_up(struct ssh_box *b, struct ssh_link *l, const char *base)
{
        struct seen seen = {0};
        struct call c;
        bool is_gone;

        call_init(&c, clock_after(5 * NS_PER_S));
        if (workspace_look(l, &c, base, b->key, &seen) < 0)
                return false;
        is_gone = seen.kind == SEEN_MISSING;
        if (seen.kind == SEEN_HALF && box_check_owner(b, &seen, &c) == 0)
                is_gone = workspace_remove(b->host, l, &c, base, b->key) == 0;
        seen_done(&seen);
        return is_gone;
}

static int find_base(struct ssh_box *b, struct ssh_link *l, struct call *c, char **ret)
{
        int r = workspace_base(b->host, l, c, false, ret);

        if (r != -ENOENT)
                return r;
        c->sentence[0] = '\0';
        return workspace_base(b->host, l, c, true, ret);
}

/* Once more when the base that we knew has gone. */
static int make_below_base(struct ssh_box *b, struct ssh_link *l, struct call *c,
                           const struct spec *spec, const char *root, char **base)
{
        int r = make(b, l, c, spec, *base, root);

        if (r != -ENOENT)
                return r;
        c->sentence[0] = '\0';
        free(STEAL(*base));
        r = workspace_base(b->host, l, c, true, base);
        return r < 0 ? r : make(b, l, c, spec, *base, root);
}

static int create_on(struct ssh_box *b, struct call *c, const struct spec *spec, const char *root)
{
        _cleanup_(freep) char *base = NULL, *real_root = NULL;
        struct ssh_link *l = NULL;
        int r = host_link(b->host, c, HOST_CONTROL, &l);

        if (r == 0 && root)
                r = find_root(l, c, root, &real_root);
        if (r == 0)
                r = find_base(b, l, c, &base);
        if (r == 0)
                r = host_record(b->host, c);
        if (r == 0) {
                c->made_nothing = false;
                r = make_below_base(b, l, c, spec, real_root, &base);
                if (r < 0 && r != -EEXIST && base)
                        c->made_nothing = give_up(b, l, base);
        }
        if (r == 0)
                r = set_paths(b, base, real_root);
        if (r == 0)
                box_set_state(b, BOX_RUNNING);
        link_unref(l);
        return r;
}

int ssh_box_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret)
{
        struct ssh_provider *ssh = ssh_provider_of(p);
        struct ssh_config config;
        struct ssh_host *h;
        struct ssh_box *b;
        int r;

        c->made_nothing = true; /* until the host is asked to */
        if (!is_key(spec->key))
                return call_fail(c, -EINVAL, "key \"%s\"", spec->key);
        r = ssh_config_of_spec(ssh->section, spec, p->allow, c, &config);
        if (r < 0)
                return r;
        r = host_get(ssh, &config, &h);
        if (r == 0) {
                b = box_new(ssh, h, spec->key, spec->owner);
                r = b ? create_on(b, c, spec, config.root) : -ENOMEM;
                if (r == 0)
                        *ret = &b->base;
                else if (b)
                        ssh_box_release(&b->base);
        }
        ssh_config_done(&config);
        return r;
}

/* ---- attach ---- */

/* The host of an id: as the spec says one gets there, if that is the same place. */
static int find_host(struct ssh_provider *ssh, struct call *c, const char *id,
                     const struct spec *spec, struct ssh_host **ret)
{
        struct ssh_config config;
        char place[CONFIG_ID_SIZE];
        int r = -ENOENT;

        if (spec && ssh_config_of_spec(ssh->section, spec, ALLOW_SSH, c, &config) == 0) {
                ssh_config_id(&config, place);
                if (!id[0] || strcmp(place, id) == 0)
                        r = host_get(ssh, &config, ret);
                ssh_config_done(&config);
        } else if (!id[0] && ssh->section->host) {
                r = host_get(ssh, ssh->section, ret);
        }
        c->sentence[0] = '\0';
        if (r == -ENOENT)
                r = host_find(ssh, id, ret);
        if (r == -ENOENT || r == -EBADMSG)
                return call_fail(c, -EINVAL, "no host of provider %s belongs to that id",
                                 ssh->base.instance);
        return r < 0 ? call_fail_errno(c, r, "the record of the host") : 0;
}

int ssh_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                   struct box **ret)
{
        struct ssh_provider *ssh = ssh_provider_of(p);
        const char *dot = strchr(id, '.');
        char key[sizeof(((struct ssh_box *)NULL)->key)];
        struct ssh_host *h;
        struct ssh_box *b;
        bool is_adopted;
        int r;

        (void)snprintf(key, sizeof(key), "%.*s", (int)(dot ? dot - id : (ssize_t)sizeof(key)), id);
        if (!is_key(key) || (size_t)(dot ? dot - id : (ssize_t)strlen(id)) != strlen(key))
                return call_fail(c, -EINVAL, "\"%.64s\" is no id of provider %s", id,
                                 ssh->base.instance);
        r = find_host(ssh, c, dot ? dot + 1 : "", spec, &h);
        if (r < 0)
                return r;
        is_adopted = spec && strcmp(spec->key, key) != 0;
        b = box_new(ssh, h, key, is_adopted ? "" : ssh->owner);
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory");
        *ret = &b->base;
        return 0;
}
