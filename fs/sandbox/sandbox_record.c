/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox's record on disk, sandboxes/<key>/record: all that a later mount must know. Settings
 * are written as "set.KEY VALUE" in the spelling of ctl; values of env are not.
 */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/settings.h"
#include "transport/base/cleanup.h"
#include "transport/base/record.h"
#include "transport/base/units.h"

int sandbox_make_dirs(struct sandbox *sb)
{
        char path[sizeof(sb->path) + 16];

        (void)snprintf(path, sizeof(path), "%s/exec", sb->path);
        if (mkdirat(sb->fleet->state_dir, sb->path, 0700) < 0 && errno != EEXIST)
                return -errno;
        if (mkdirat(sb->fleet->state_dir, path, 0700) < 0 && errno != EEXIST)
                return -errno;
        return 0;
}

/* ---- writing ---- */

static int add_u64(struct record *r, const char *key, uint64_t value)
{
        return value ? record_addf(r, key, "%" PRIu64, value) : 0;
}

static int add_text(struct record *r, const char *key, const char *value)
{
        return value[0] ? record_add(r, key, value) : 0;
}

static int add_flag(struct record *r, const char *key, bool on)
{
        return on ? record_add(r, key, "1") : 0;
}

static int add_setting(const struct spec *s, enum setting x, struct record *r)
{
        char key[64], text[64];

        (void)snprintf(key, sizeof(key), "set.%s", setting_name(x));
        switch ((int)x) { /* all others are words */
        case SETTING_CPU: units_format_cpu(s->cpu_milli, text, sizeof(text)); break;
        case SETTING_MEMORY: units_format_size(s->memory, text, sizeof(text)); break;
        case SETTING_DISK: units_format_size(s->disk, text, sizeof(text)); break;
        case SETTING_PROCESSES: (void)snprintf(text, sizeof(text), "%" PRIu64, s->processes); break;
        case SETTING_TIMEOUT:
                if (s->timeout_ns)
                        units_format_span(s->timeout_ns, text, sizeof(text));
                else
                        (void)snprintf(text, sizeof(text), "none");
                break;
        case SETTING_CREATE_TIMEOUT:
                units_format_span(s->create_timeout_ns, text, sizeof(text));
                break;
        case SETTING_READONLY:
                (void)snprintf(text, sizeof(text), "%s", s->is_readonly ? "on" : "off");
                break;
        default: return s->text[x] ? record_add(r, key, s->text[x]) : 0;
        }
        return record_add(r, key, text);
}

static int add_families(const struct spec *s, struct record *r)
{
        char key[300];
        int x = 0;

        for (size_t i = 0; i < s->mount_count && x == 0; i++) {
                const struct mount_spec *m = &s->mounts[i];

                (void)snprintf(key, sizeof(key), "set.mount.%zu", i);
                x = record_addf(r, key, "%s:%s%s", m->host, m->inside, m->is_readonly ? ":ro" : "");
        }
        for (size_t i = 0; i < s->label_count && x == 0;
             i++) /* a label's name may hold '/', a key may not */
                x = record_addf(r, "label", "%s=%s", s->labels[i].key, s->labels[i].value);
        return x;
}

static int add_spec(const struct spec *s, struct record *r)
{
        int x = 0;

        for (unsigned i = 0; i < SETTING_COUNT && x == 0; i++)
                if ((s->given & SETTING_BIT(i)) && i != SETTING_ENV && i != SETTING_LABEL &&
                    i != SETTING_MOUNT)
                        x = add_setting(s, (enum setting)i, r);
        return x < 0 ? x : add_families(s, r);
}

static int fill_locked(const struct sandbox *sb, struct record *r) REQUIRES(sb->lock)
{
        int x = record_addf(r, "serial", "%" PRIu64, sb->serial);

        if (x == 0)
                x = add_text(r, "name", sb->is_destroying ? sb->base_name : sb->name);
        if (x == 0)
                x = record_add(r, "provider", sb->provider);
        if (x == 0)
                x = add_text(r, "id", sb->box_id);
        if (x == 0)
                x = record_add(r, "state", box_state_name(sb->state));
        if (x == 0)
                x = add_u64(r, "since", sb->since_real_ns);
        if (x == 0)
                x = add_u64(r, "created", sb->created_real_ns);
        if (x == 0)
                x = add_u64(r, "ready_ms", sb->ready_ms);
        if (x == 0)
                x = add_text(r, "error", sb->last_error);
        if (x == 0)
                x = add_u64(r, "error_time", sb->error_real_ns);
        if (x == 0)
                x = add_u64(r, "execs", sb->last_number);
        if (x == 0)
                x = add_flag(r, "destroying", sb->is_destroying);
        if (x == 0)
                x = add_flag(r, "protected", sb->is_protected);
        if (x == 0)
                x = add_flag(r, "foreign", sb->is_foreign);
        if (x == 0)
                x = add_flag(r, "idle_down", sb->is_idle_down);
        if (x == 0)
                x = add_flag(r, "env", sb->env_state != ENV_NONE);
        if (x == 0)
                x = add_flag(r, "create_env", sb->had_env);
        if (x == 0)
                x = add_flag(r, "not_made", !sb->was_create_tried && !sb->box_id[0]);
        return x < 0 ? x : add_spec(&sb->spec, r);
}

static int write_record(struct sandbox *sb, bool sync)
{
        _cleanup_(record_freep) struct record *r = record_new();
        _cleanup_(closep) int dir = -1;
        bool is_wanted;
        int x;

        if (!r)
                return -ENOMEM;
        mutex_lock(&sb->lock);
        is_wanted = sb->is_recorded && !sb->is_dead;
        x = fill_locked(sb, r);
        mutex_unlock(&sb->lock);
        if (x < 0 || !is_wanted)
                return x;
        dir = openat(sb->fleet->state_dir, sb->path,
                     O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (dir < 0)
                return -errno;
        return record_write(r, dir, "record", sync ? RECORD_SYNC : RECORD_NO_SYNC);
}

int sandbox_save(struct sandbox *sb, bool sync)
{
        int r;

        mutex_lock(&sb->save_lock);
        r = write_record(sb, sync);
        mutex_unlock(&sb->save_lock);
        return r;
}

/* ---- reading ---- */

static uint64_t get_u64(const struct record *r, const char *key)
{
        const char *text = record_get(r, key);
        uint64_t value;

        return text && units_parse_count(text, INT64_MAX, &value) == 0 ? value : 0;
}

static void get_text(const struct record *r, const char *key, char *to, size_t size)
{
        const char *text = record_get(r, key);

        (void)snprintf(to, size, "%s", text ? text : "");
}

static int load_setting(struct spec *s, const char *key, const char *value, struct call *c)
{
        _cleanup_(freep) char *label = NULL;
        char *equals;
        int r;

        if (strncmp(key, "set.", 4) == 0)
                return settings_add(s, key + 4, value, c);
        if (strcmp(key, "label") != 0)
                return 0;
        label = strdup(value);
        equals = label ? strchr(label, '=') : NULL;
        if (!equals)
                return label ? call_fail(c, -EINVAL, "label without a value") : -ENOMEM;
        *equals = '\0';
        r = pairs_set(&s->labels, &s->label_count, label, equals + 1);
        s->given |= SETTING_BIT(SETTING_LABEL);
        return r;
}

/* A setting that an older version wrote and this one refuses is left out. */
static void load_spec(struct spec *s, const struct record *r)
{
        struct call c;

        call_init(&c, NEVER_NS);
        for (size_t i = 0; i < record_count(r); i++) {
                const char *key, *value;

                record_at(r, i, &key, &value);
                (void)load_setting(s, key, value, &c);
        }
}

static void fill(struct sandbox *sb, const struct record *r) REQUIRES(sb->lock)
{
        get_text(r, "name", sb->name, sizeof(sb->name));
        get_text(r, "provider", sb->provider, sizeof(sb->provider));
        get_text(r, "id", sb->box_id, sizeof(sb->box_id));
        get_text(r, "error", sb->last_error, sizeof(sb->last_error));
        sb->state = box_state_parse(record_get(r, "state") ?: "unknown");
        sb->since_real_ns = get_u64(r, "since");
        sb->created_real_ns = get_u64(r, "created");
        sb->changed_real_ns =
                sb->since_real_ns > sb->created_real_ns ? sb->since_real_ns : sb->created_real_ns;
        sb->ready_ms = get_u64(r, "ready_ms");
        sb->error_real_ns = get_u64(r, "error_time");
        sb->last_number = get_u64(r, "execs");
        sb->is_destroying = record_get(r, "destroying") != NULL;
        sb->is_protected = record_get(r, "protected") != NULL;
        sb->is_foreign = record_get(r, "foreign") != NULL;
        sb->is_idle_down = record_get(r, "idle_down") != NULL;
        sb->had_env = record_get(r, "create_env") != NULL;
        sb->env_state = record_get(r, "env") ? ENV_LOST : ENV_NONE;
        sb->is_recorded = true;
        sb->was_create_tried = record_get(r, "not_made") == NULL;
        if (sb->is_destroying) {
                memcpy(sb->base_name, sb->name, sizeof(sb->base_name));
                sb->state = BOX_DESTROYING;
        }
        load_spec(&sb->spec, r);
        (void)snprintf(sb->spec.name, sizeof(sb->spec.name), "%s", sb->name);
}

static bool is_sound(const struct record *r)
{
        const char *name = record_get(r, "name"), *provider = record_get(r, "provider");

        return get_u64(r, "serial") > 0 && name && name_is_valid(name) && provider &&
               name_is_valid(provider);
}

int sandbox_load(struct fleet *f, const char *key, struct sandbox **ret)
{
        _cleanup_(record_freep) struct record *r = NULL;
        _cleanup_(closep) int dir = -1;
        struct sandbox *sb;
        char path[300];
        int x;

        (void)snprintf(path, sizeof(path), "sandboxes/%.255s", key);
        dir = openat(f->state_dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (dir < 0)
                return -errno;
        x = record_read(dir, "record", &r);
        if (x < 0)
                return x;
        if (!is_sound(r) || strlen(key) >= sizeof(sb->key))
                return -EBADMSG;
        sb = sandbox_new(f, fleet_section(f, record_get(r, "provider")), get_u64(r, "serial"), key);
        if (!sb)
                return -ENOMEM;
        mutex_lock(&sb->lock);
        fill(sb, r);
        mutex_unlock(&sb->lock);
        *ret = sb;
        return tasks_load(sb);
}
