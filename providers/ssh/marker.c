/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/marker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/ssh/ssh.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/random.h"
#include "transport/base/record.h"
#include "transport/base/units.h"
#include "transport/sftp/batch.h"

void marker_done(struct marker *m)
{
        free(m->root);
        *m = (struct marker){0};
}

static int add_labels(struct record *to, const struct spec *spec)
{
        char key[32];
        int r = 0;

        for (size_t i = 0; i < spec->label_count && r == 0; i++) {
                /* Names of labels may hold '/', which a record's keys can't. */
                (void)snprintf(key, sizeof(key), "label.%zu", i);
                r = record_addf(to, key, "%s=%s", spec->labels[i].key, spec->labels[i].value);
        }
        return r;
}

int marker_format(const struct spec *spec, const char *root, struct buf *to)
{
        _cleanup_(record_freep) struct record *record = record_new();
        int r = record ? 0 : -ENOMEM;

        if (r == 0)
                r = record_add(record, "key", spec->key);
        if (r == 0)
                r = record_add(record, "name", spec->name);
        if (r == 0)
                r = record_add(record, "owner", spec->owner);
        if (r == 0)
                r = record_addf(record, "created", "%" PRIu64, clock_real_ns());
        if (r == 0 && spec->timeout_ns)
                r = record_addf(record, "timeout", "%" PRIu64, spec->timeout_ns);
        if (r == 0 && root)
                r = record_add(record, "root", root);
        if (r == 0)
                r = add_labels(record, spec);
        return r < 0 ? r : record_format(record, to);
}

static bool copy_word(const struct record *from, const char *key, char *to, size_t size)
{
        const char *value = record_get(from, key);

        if (!value || strlen(value) >= size)
                return false;
        (void)snprintf(to, size, "%s", value); /* it fits */
        return true;
}

static uint64_t get_number(const struct record *from, const char *key)
{
        const char *value = record_get(from, key);
        uint64_t n = 0;

        if (value)
                (void)units_parse_count(value, UINT64_MAX, &n); /* 0: not known */
        return n;
}

int marker_parse(const char *text, size_t size, struct marker *ret)
{
        _cleanup_(record_freep) struct record *record = NULL;
        struct marker m = {0};
        const char *root;
        int r = record_parse(text, size, &record);

        if (r < 0)
                return r;
        if (!copy_word(record, "key", m.key, sizeof(m.key)) ||
            !copy_word(record, "name", m.name, sizeof(m.name)) ||
            !copy_word(record, "owner", m.owner, sizeof(m.owner)))
                return -EBADMSG;
        root = record_get(record, "root");
        if (root && root[0] != '/')
                return -EBADMSG;
        m.created_real_ns = get_number(record, "created");
        m.timeout_ns = get_number(record, "timeout");
        if (root) {
                m.root = strdup(root);
                if (!m.root)
                        return -ENOMEM;
        }
        *ret = m;
        return 0;
}

int marker_env(const struct spec *spec, struct buf *to)
{
        int r = 0;

        for (size_t i = 0; i < spec->env_count && r == 0; i++) {
                r = buf_addf(to, "export %s=", spec->env[i].key); /* a name, checked */
                if (r == 0)
                        r = quote_add(to, spec->env[i].value);
                if (r == 0)
                        r = buf_add_char(to, '\n');
        }
        return r;
}

/* ---- small files ---- */

struct bytes {
        const char *data;
};

static int read_bytes(void *ctx, void *data, size_t size, uint64_t offset)
{
        const struct bytes *b = ctx;

        memcpy(data, b->data + offset, size);
        return 0;
}

static int fill(struct ssh_link *l, struct call *c, const char *temp, const void *data, size_t size)
{
        struct bytes bytes = {.data = data};
        const struct sftp_source source = {.read = read_bytes, .ctx = &bytes};
        struct sftp_file file = {.s = l->sftp};
        int r = sftp_open(l->sftp, c, temp, SFTP_FOR_WRITE | SFTP_CREATE | SFTP_EXCLUSIVE, 0600,
                          &file.handle);

        if (r < 0)
                return r;
        if (size > 0)
                r = sftp_write(&file, 1, c, &source, size, 0);
        if (r == 0 && (sftp_features(l->sftp) & SFTP_CAN_FSYNC))
                r = sftp_fsync(l->sftp, c, &file.handle);
        sftp_close_later(l->sftp, &file.handle);
        return r;
}

int remote_write(struct ssh_link *l, struct call *c, const char *path, const void *data,
                 size_t size)
{
        _cleanup_(freep) char *temp = NULL;
        char id[RANDOM_ID_SIZE];
        int r = random_id(id);

        if (r < 0)
                return r;
        if (asprintf(&temp, "%s.%s", path, id) < 0) {
                temp = NULL;
                return -ENOMEM;
        }
        r = fill(l, c, temp, data, size);
        if (r == 0)
                r = sftp_rename(l->sftp, c, temp, path, true);
        if (r < 0)
                (void)sftp_unlink(l->sftp, c, temp); /* what failed is told */
        return r;
}

int remote_stat(struct ssh_link *l, struct call *c, const char *path, struct stat *ret)
{
        struct sftp_stat_item item = {.path = path};
        int r = sftp_stat(l->sftp, c, &item, 1);

        if (r == 0)
                r = item.error;
        if (r == 0)
                *ret = item.st;
        return r;
}

int remote_mkdir(struct ssh_link *l, struct call *c, const char *path, mode_t mode)
{
        struct stat st = {0};
        int r = sftp_mkdir(l->sftp, c, path, mode);

        if (r == -EEXIST || r == -EIO) {
                int seen = remote_stat(l, c, path, &st);

                if (seen == 0)
                        r = S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
        }
        return r;
}
