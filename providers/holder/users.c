/* SPDX-License-Identifier: Apache-2.0 */
/* Users and groups by their files; see users.h. No NSS: this runs in images that have nothing. */

#include "providers/holder/users.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"

#define FILE_MAX ((size_t)1 << 20)
#define FIELDS_MAX 7
#define NAME_MAX_BYTES 256

struct field {
        const char *at;
        size_t size;
};

/* A line's fields; the next line, NULL at the end. */
static const char *next_line(const char *text, struct field fields[FIELDS_MAX])
{
        size_t length = strcspn(text, "\n");
        const char *end = text + length;

        for (unsigned i = 0; i < FIELDS_MAX; i++)
                fields[i] = (struct field){end, 0};
        for (unsigned i = 0; i < FIELDS_MAX; i++) {
                const char *colon = memchr(text, ':', (size_t)(end - text));

                fields[i] = (struct field){text, (size_t)((colon ? colon : end) - text)};
                if (!colon)
                        break;
                text = colon + 1;
        }
        return *end ? end + 1 : NULL;
}

static bool is_text(const struct field *f, const char *text, size_t size)
{
        return f->size == size && memcmp(f->at, text, size) == 0;
}

/* Digits only, up to 2^31 - 1 as the engines have it. */
static bool to_number(const char *text, size_t size, uint32_t *ret)
{
        uint64_t value = 0;

        if (size == 0 || size > 10)
                return false;
        for (size_t i = 0; i < size; i++) {
                if (text[i] < '0' || text[i] > '9')
                        return false;
                value = value * 10 + (uint64_t)(text[i] - '0');
        }
        *ret = (uint32_t)value;
        return value <= INT32_MAX;
}

static bool all_digits(const char *text, size_t size)
{
        return size > 0 && strspn(text, "0123456789") >= size;
}

/* ---- passwd ---- */

struct found {
        char name[NAME_MAX_BYTES]; /* "" no line of that user */
        bool is_known;
};

static void take_user(const struct field f[FIELDS_MAX], struct user *ret, struct found *found)
{
        uint32_t uid, gid;

        if (!to_number(f[2].at, f[2].size, &uid) || !to_number(f[3].at, f[3].size, &gid))
                return;
        found->is_known = true;
        ret->uid = uid;
        ret->gid = gid;
        if (f[0].size < sizeof(found->name))
                (void)snprintf(found->name, sizeof(found->name), "%.*s", (int)f[0].size, f[0].at);
        if (f[5].size > 0 && f[5].size < sizeof(ret->home) && f[5].at[0] == '/')
                (void)snprintf(ret->home, sizeof(ret->home), "%.*s", (int)f[5].size, f[5].at);
}

/* By name, or by number where no name is so. */
static int find_user(const char *text, size_t size, const char *passwd, struct user *ret,
                     struct found *found)
{
        struct field f[FIELDS_MAX];
        uint32_t number = 0;
        bool has_number = to_number(text, size, &number);

        for (const char *at = passwd; at && !found->is_known;) {
                uint32_t uid;

                at = next_line(at, f);
                if (is_text(&f[0], text, size) ||
                    (has_number && to_number(f[2].at, f[2].size, &uid) && uid == number))
                        take_user(f, ret, found);
        }
        if (found->is_known)
                return 0;
        ret->uid = number;
        ret->gid = 0;
        return has_number ? 0 : all_digits(text, size) ? -EINVAL : -ENOENT;
}

/* ---- group ---- */

static bool has_member(const struct field *list, const char *name)
{
        const char *at = list->at, *end = at + list->size;

        while (at < end) {
                const char *comma = memchr(at, ',', (size_t)(end - at));
                struct field each = {at, (size_t)((comma ? comma : end) - at)};

                if (is_text(&each, name, strlen(name)))
                        return true;
                at += each.size + 1;
        }
        return false;
}

static void find_groups(const char *name, const char *group, struct user *ret)
{
        struct field f[FIELDS_MAX];

        for (const char *at = group; at && ret->group_count < USER_GROUPS_MAX;) {
                uint32_t gid;

                at = next_line(at, f);
                if (to_number(f[2].at, f[2].size, &gid) && has_member(&f[3], name))
                        ret->groups[ret->group_count++] = gid;
        }
}

static int find_group(const char *text, const char *group, struct user *ret)
{
        size_t size = strlen(text);
        struct field f[FIELDS_MAX];
        uint32_t number = 0;
        bool has_number = to_number(text, size, &number);

        for (const char *at = group; at;) {
                uint32_t gid;

                at = next_line(at, f);
                if (is_text(&f[0], text, size) && to_number(f[2].at, f[2].size, &gid)) {
                        ret->gid = gid;
                        return 0;
                }
        }
        ret->gid = number;
        return has_number ? 0 : all_digits(text, size) ? -EINVAL : -ENOENT;
}

int user_parse(const char *spec, const char *passwd, const char *group, struct user *ret)
{
        size_t size = strcspn(spec, ":");
        struct user user = {.home = "/"};
        struct found found = {0};
        int r = size > 0 ? find_user(spec, size, passwd, &user, &found) : -EINVAL;

        if (r == 0 && spec[size] == ':')
                r = find_group(spec + size + 1, group, &user);
        else if (r == 0 && found.name[0])
                find_groups(found.name, group, &user);
        if (r == 0)
                *ret = user;
        return r;
}

/* "" where there is none. */
static int read_text(const char *path, struct buf *to)
{
        int r = file_read(-1, path, to);

        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
}

int user_find(const char *spec, struct user *ret)
{
        _cleanup_(buf_done) struct buf passwd = BUF_INIT(FILE_MAX), group = BUF_INIT(FILE_MAX);
        int r = read_text("/etc/passwd", &passwd);

        if (r == 0)
                r = read_text("/etc/group", &group);
        return r < 0 ? r : user_parse(spec, buf_str(&passwd), buf_str(&group), ret);
}
