/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How sandboxes come into the fleet and leave it: create, adopt, rename, remove.
 * All of it is local work.
 */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "fs/sandbox/settings.h"
#include "transport/base/escape.h"
#include "transport/base/log.h"
#include "transport/base/random.h"

#define COSTLY_TIMEOUT_NS (UINT64_C(3600) * NS_PER_S) /* where time costs money */

int fleet_check_name(const char *name, struct call *c)
{
        static const char *const reserved[] = {"ctl",       "status",    "README", "events",
                                               "providers", "templates", "by-id",  "help",
                                               "wait",      "follow"};
        char shown[80];

        escape_text(name, strlen(name), shown, sizeof(shown));
        if (!name_is_valid(name))
                return call_fail(
                        c, -EINVAL,
                        "\"%s\" is not a name: [A-Za-z0-9._-], 63 at most, a letter or digit first and last",
                        shown);
        for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
                if (strcmp(name, reserved[i]) == 0)
                        return call_fail(c, -EINVAL, "\"%s\" is reserved", name);
        return 0;
}

/* ---- the spec ---- */

static bool is_host(const struct pair *p)
{
        return strcmp(p->key, setting_name(SETTING_HOST)) == 0;
}

/* host=NAME of the section itself says nothing more: its host is its own. */
static int add_settings(struct spec *s, const struct section *section,
                        const struct create_options *o, struct call *c)
{
        const struct pair *p = o->settings;
        int r = 0;

        for (size_t i = 0; i < o->setting_count && r == 0; i++)
                if (!is_host(&p[i]) || strcmp(p[i].value, section->instance) != 0)
                        r = settings_add(s, p[i].key, p[i].value, c);
        return r;
}

/*
 * What the user names is held against what the operator allows; an INI section's settings are the
 * operator's own.
 */
static int check_user(const struct section *s, const struct create_options *o, struct call *c)
{
        struct spec user;
        int r;

        spec_init(&user);
        r = add_settings(&user, s, o, c);
        if (r == 0) {
                user.given &= s->provider->ops->settings; /* others are refused as such */
                r = settings_check_allowed(&user, s->allow, c);
        }
        spec_done(&user);
        return r;
}

/* The section's defaults, and over them the user's. */
static int build(struct fleet *f, const struct section *s, const struct create_options *o,
                 const char *key, struct spec *ret, struct call *c)
{
        int r = spec_copy(&s->defaults, ret);

        if (r < 0)
                return call_fail(c, r, "out of memory");
        (void)snprintf(ret->key, sizeof(ret->key), "%s", key);
        (void)snprintf(ret->owner, sizeof(ret->owner), "%s", f->owner);
        (void)snprintf(ret->name, sizeof(ret->name), "%s", o->name);
        r = add_settings(ret, s, o, c);
        if (r == 0 && !(ret->given & SETTING_BIT(SETTING_TIMEOUT)) &&
            (s->provider->ops->traits & PROVIDER_COSTS))
                ret->timeout_ns = COSTLY_TIMEOUT_NS;
        if (r < 0)
                spec_done(ret);
        return r;
}

static struct section *choose(struct fleet *f, const char *provider, struct call *c, int *ret)
{
        struct section *s = provider ? fleet_section(f, provider) : f->default_section;
        char shown[80];

        if (!s) {
                escape_text(provider ? provider : "-", strlen(provider ? provider : "-"), shown,
                            sizeof(shown));
                *ret = call_fail(c, -ENOENT, "there is no provider \"%s\"", shown);
        } else if (!s->provider) {
                *ret = call_fail(c, -EHOSTUNREACH, "provider %s is down: %s", s->instance,
                                 s->sentence);
                s = NULL;
        }
        return s;
}

/* The section for a creation: host=NAME of another section of that kind means that one. */
static struct section *choose_for(struct fleet *f, const struct create_options *o, struct call *c,
                                  int *ret)
{
        struct section *s = choose(f, o->provider, c, ret);

        for (size_t i = 0; s && i < o->setting_count; i++) {
                const struct section *named =
                        is_host(&o->settings[i]) ? fleet_section(f, o->settings[i].value) : NULL;

                if (named && strcmp(named->kind, s->kind) == 0)
                        return choose(f, named->instance, c, ret);
        }
        return s;
}

static int check_room(struct fleet *f, const char *name, unsigned ahead, struct call *c)
{
        int r = 0;

        mutex_lock(&f->lock);
        if (name && fleet_find_locked(f, name))
                r = call_fail(c, -EEXIST, "there is a sandbox %s already", name);
        else if (f->named_count + ahead >= f->max_sandboxes)
                r = call_fail(c, -EDQUOT,
                              "there are %u sandboxes already; -o max-sandboxes raises that",
                              f->max_sandboxes);
        else if (imap_count(f->by_serial) + ahead >= (size_t)2 * f->max_sandboxes)
                r = call_fail(c, -EDQUOT, "too many sandboxes are still being destroyed");
        mutex_unlock(&f->lock);
        return r;
}

int fleet_check_create(struct fleet *f, const struct create_options *o, unsigned ahead,
                       struct call *c)
{
        struct section *s;
        struct spec spec;
        int r = fleet_check_name(o->name, c);

        if (r == 0)
                r = check_room(f, o->name, ahead, c);
        if (r < 0)
                return r;
        s = choose_for(f, o, c, &r);
        if (!s)
                return r;
        r = check_user(s, o, c);
        if (r == 0)
                r = build(f, s, o, "0", &spec, c);
        if (r < 0)
                return r;
        r = settings_check(&spec, s->provider, c);
        spec_done(&spec);
        return r;
}

/* ---- create and adopt ---- */

static struct sandbox *new_sandbox(struct fleet *f, struct section *s, struct call *c, int *ret)
{
        char key[RANDOM_ID_SIZE];
        struct sandbox *sb;
        uint64_t serial = 0;

        *ret = random_id(key);
        if (*ret == 0)
                *ret = fleet_next_serial(f, &serial);
        if (*ret < 0) {
                (void)call_fail_errno(c, *ret, "write to the state directory %s", f->state_path);
                return NULL;
        }
        sb = sandbox_new(f, s, serial, key);
        if (!sb)
                *ret = call_fail(c, -ENOMEM, "out of memory");
        return sb;
}

static int insert(struct fleet *f, struct sandbox *sb, const char *name, struct call *c)
{
        int r;

        mutex_lock(&f->lock);
        r = fleet_add_name_locked(f, sb, name);
        if (r == 0) {
                r = fleet_insert_locked(f, sb);
                if (r < 0)
                        fleet_remove_name_locked(f, sb);
        }
        mutex_unlock(&f->lock);
        if (r == -EEXIST)
                return call_fail(c, r, "there is a sandbox %s already", name);
        return r < 0 ? call_fail(c, r, "out of memory") : 0;
}

/* It is there from now on, whatever happens to us: the creation itself makes it durable. */
static int write_first_record(struct sandbox *sb, struct call *c)
{
        int r;

        mutex_lock(&sb->lock);
        sb->is_recorded = true;
        mutex_unlock(&sb->lock);
        r = sandbox_make_dirs(sb);
        if (r == 0)
                r = sandbox_save(sb, false);
        if (r == 0)
                return 0;
        (void)fleet_hide(sb->fleet, sb);
        sandbox_gone(sb);
        return call_fail_errno(c, r, "write to the state directory");
}

static void begin(struct sandbox *sb, struct job *j)
{
        mutex_lock(&sb->lock);
        sandbox_enqueue_locked(sb, j, false);
        sandbox_change_locked(sb);
        mutex_unlock(&sb->lock);
        sandbox_kick(sb);
        news_post(sb->fleet);
}

int fleet_create(struct fleet *f, const struct create_options *o, uint64_t seq, struct call *c,
                 struct sandbox **ret)
{
        struct sandbox *sb = NULL;
        struct job *j = NULL;
        struct section *s;
        int r = fleet_check_create(f, o, 0, c);

        if (r < 0)
                return r;
        s = choose_for(f, o, c, &r);
        if (!s)
                return r;
        sb = new_sandbox(f, s, c, &r);
        if (!sb)
                return r;
        j = job_new(JOB_CREATE, f->results, seq);
        if (!j)
                r = call_fail(c, -ENOMEM, "out of memory");
        if (r == 0) {
                struct spec spec;

                r = build(f, s, o, sb->key, &spec, c);
                if (r == 0) {
                        mutex_lock(&sb->lock);
                        spec_done(&sb->spec);
                        sb->spec = spec;
                        sb->had_env = spec.env_count > 0;
                        mutex_unlock(&sb->lock);
                        r = insert(f, sb, o->name, c);
                }
        }
        if (r < 0) {
                job_free(j);
                sandbox_unref(sb);
                return r;
        }
        r = write_first_record(sb, c);
        if (r < 0) {
                job_free(j);
                return r;
        }
        if (ret)
                *ret = sandbox_ref(sb);
        begin(sb, j);
        return 0;
}

/* A valid name made of an id. */
static void name_of_id(const char *id, char ret[NAME_SIZE])
{
        size_t n = 0;

        for (; *id && n < NAME_LENGTH_MAX - 4; id++) {
                char one[2] = {*id, '\0'};

                if (name_is_valid(one) || (n > 0 && strchr("._-", *id)))
                        ret[n++] = *id;
        }
        while (n > 0 && strchr("._-", ret[n - 1]))
                n--;
        ret[n] = '\0';
        if (n == 0)
                (void)snprintf(ret, NAME_SIZE, "adopted");
}

bool fleet_has_id(struct fleet *f, const struct section *s, const char *id)
{
        size_t count;
        struct sandbox **all = fleet_all(f, &count);
        bool is_known = false;

        for (size_t i = 0; i < count; i++) {
                mutex_lock(&all[i]->lock);
                is_known |= all[i]->section == s && strcmp(all[i]->box_id, id) == 0;
                mutex_unlock(&all[i]->lock);
                sandbox_unref(all[i]);
        }
        free(all);
        return is_known;
}

int fleet_check_adopt(struct fleet *f, const char *provider, const char *id, const char *name,
                      struct call *c)
{
        struct section *s;
        int r = name ? fleet_check_name(name, c) : 0;

        if (r == 0)
                r = check_room(f, name, 0, c);
        if (r < 0)
                return r;
        s = choose(f, provider, c, &r);
        if (!s)
                return r;
        if (id[0] == '\0' || strlen(id) >= sizeof(((struct box *)NULL)->id))
                return call_fail(c, -EINVAL, "that is not an id");
        if (fleet_has_id(f, s, id))
                return call_fail(c, -EEXIST, "it is in this mount already");
        return 0;
}

static int adopt(struct fleet *f, const char *provider, const char *id, const char *name,
                 uint64_t seq, struct call *c)
{
        char made[NAME_SIZE];
        struct sandbox *sb;
        struct section *s;
        struct job *j;
        int r = fleet_check_adopt(f, provider, id, name, c);

        if (r < 0)
                return r;
        s = choose(f, provider, c, &r);
        if (!s)
                return r;
        sb = new_sandbox(f, s, c, &r);
        if (!sb)
                return r;
        j = job_new(JOB_ADOPT, f->results, seq);
        if (!j)
                r = call_fail(c, -ENOMEM, "out of memory");
        if (r == 0) {
                mutex_lock(&sb->lock);
                (void)snprintf(sb->box_id, sizeof(sb->box_id), "%s", id);
                mutex_unlock(&sb->lock);
                if (!name) {
                        name_of_id(id, made);
                        name = made;
                }
                r = insert(f, sb, name, c);
        }
        if (r < 0) {
                job_free(j);
                sandbox_unref(sb);
                return r;
        }
        begin(sb, j);
        return 0;
}

void fleet_adopt(struct fleet *f, const char *provider, const char *id, const char *name,
                 uint64_t seq)
{
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        r = adopt(f, provider, id, name, seq, &c);
        if (r < 0)
                results_end(f->results, seq, r, c.sentence);
}

/* ---- remove and rename ---- */

static int check_remove_locked(const struct sandbox *sb, struct call *c) REQUIRES(sb->lock)
{
        if (sb->is_protected)
                return call_fail(c, -EPERM, "%s is protected: write `protect off` to its ctl first",
                                 sb->name);
        if (sb->is_foreign)
                return call_fail(c, -EBUSY,
                                 "%s belongs to another state directory: write `destroy` to its "
                                 "ctl",
                                 sb->name);
        if (sb->running > 0)
                return call_fail(c, -EBUSY,
                                 "a command runs in %s; kill it, or write `destroy` to its ctl",
                                 sb->name);
        if (sb->unsent > 0)
                return call_fail(c, -EBUSY,
                                 "%s refused changes, see %s/unsent: write `retry` or `discard "
                                 "PATH` to its ctl, or `destroy`",
                                 sb->name, sb->name);
        if (sb->dirty_files > 0)
                return call_fail(c, -EBUSY,
                                 "%s has files that were not delivered yet: write `sync` to its "
                                 "ctl, or `destroy`",
                                 sb->name);
        if (!sb->section || !sb->section->provider)
                return call_fail(c, -EHOSTUNREACH, "provider %s is not there", sb->provider);
        return 0;
}

int fleet_remove(struct fleet *f, const char *name, struct call *c)
{
        struct sandbox *sb = fleet_find(f, name);
        int r;

        if (!sb)
                return call_fail(c, -ENOENT, "there is no such sandbox");
        mutex_lock(&sb->lock);
        r = check_remove_locked(sb, c);
        if (r < 0)
                sandbox_say_error_locked(sb, r, c->sentence);
        mutex_unlock(&sb->lock);
        if (r == 0)
                destroy_accept(sb, NULL, 0);
        sandbox_unref(sb);
        return r;
}

int fleet_rename(struct fleet *f, const char *name, const char *new_name, struct call *c)
{
        struct sandbox *sb;
        int r = fleet_check_name(new_name, c);

        if (r < 0)
                return r;
        mutex_lock(&f->lock);
        sb = fleet_find_locked(f, name);
        if (!sb)
                r = call_fail(c, -ENOENT, "there is no such sandbox");
        else if (sb != fleet_find_locked(f, new_name) && fleet_find_locked(f, new_name))
                r = call_fail(c, -EEXIST, "there is a sandbox %s already", new_name);
        if (r == 0 && strcmp(name, new_name) != 0) {
                (void)sandbox_ref(sb);
                fleet_remove_name_locked(f, sb);
                /* there is room: one was just taken out */
                r = fleet_add_name_locked(f, sb, new_name);
                assert(r == 0);
        } else {
                sb = NULL;
        }
        mutex_unlock(&f->lock);
        if (!sb)
                return r;
        mutex_lock(&sb->lock);
        if (sb->is_destroying)
                (void)snprintf(sb->base_name, sizeof(sb->base_name), "%s", new_name);
        sandbox_change_locked(sb);
        mutex_unlock(&sb->lock);
        r = sandbox_save(sb, false);
        if (r < 0)
                log_error("%s: writing the record: %s: after a restart it is %s again", sb->path,
                          errno_name(r), name);
        sandbox_unref(sb);
        news_post(f);
        return 0;
}
