/* SPDX-License-Identifier: Apache-2.0 */

#include "transport/archive/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "transport/archive/name.h"

#define PIECE (256 * 1024) /* that the sink gets at once */

struct tar_writer {
        struct archive *archive;
        struct archive_entry *entry; /* used again for each */
        struct tar_out *to;
        uint64_t missing; /* bytes of the last file that haven't come yet */
        int error; /* the sink's; it gets nothing more */
};

/* libarchive 3.6 loses memory when this fails: it never does, and whoever called is told. */
static la_ssize_t on_bytes(struct archive *a, void *ctx, const void *data, size_t size)
{
        struct tar_writer *w = ctx;

        (void)a; /* ours */
        if (w->error == 0)
                w->error = w->to->data(w->to, data, size);
        return (la_ssize_t)size;
}

/* libarchive's word as ours. */
static int result(const struct tar_writer *w, la_ssize_t r)
{
        if (w->error != 0)
                return w->error;
        if (r >= ARCHIVE_WARN)
                return 0;
        return archive_errno(w->archive) == ENOMEM ? -ENOMEM : -EINVAL;
}

static int set_up(struct tar_writer *w)
{
        struct archive *a = w->archive;

        /* No padding behind the end. A name that is not ASCII is written as the bytes it is. */
        if (archive_write_set_format_pax(a) != ARCHIVE_OK ||
            archive_write_set_bytes_per_block(a, PIECE) != ARCHIVE_OK ||
            archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK)
                return -ENOMEM;
        return archive_write_open(a, w, NULL, on_bytes, NULL) == ARCHIVE_OK ? 0 : -ENOMEM;
}

int tar_writer_new(struct tar_out *to, struct tar_writer **ret)
{
        struct tar_writer *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return -ENOMEM;
        w->to = to;
        w->archive = archive_write_new();
        w->entry = archive_entry_new();
        r = w->archive && w->entry ? set_up(w) : -ENOMEM;
        if (r < 0) {
                tar_writer_free(w);
                return r;
        }
        *ret = w;
        return 0;
}

int tar_add(struct tar_writer *w, const struct tar_entry *e)
{
        if (w->missing > 0 || !tar_name_is_right(e->name) || e->size > INT64_MAX ||
            (e->is_dir && e->size > 0) || e->mtime.tv_nsec < 0 || e->mtime.tv_nsec > 999999999)
                return -EINVAL;
        archive_entry_clear(w->entry);
        archive_entry_set_pathname(w->entry, e->name);
        archive_entry_set_filetype(w->entry, e->is_dir ? AE_IFDIR : AE_IFREG);
        archive_entry_set_perm(w->entry, e->mode & 07777);
        archive_entry_set_mtime(w->entry, e->mtime.tv_sec, e->mtime.tv_nsec);
        archive_entry_set_size(w->entry, (la_int64_t)e->size);
        w->missing = e->size;
        return result(w, archive_write_header(w->archive, w->entry));
}

int tar_write(struct tar_writer *w, const void *data, size_t size)
{
        const char *at = data;

        if (size > w->missing)
                return -EINVAL;
        while (size > 0) {
                la_ssize_t n = archive_write_data(w->archive, at, size);

                if (n <= 0)
                        return n < 0 ? result(w, n) : -EINVAL;
                at += n;
                size -= (size_t)n;
                w->missing -= (uint64_t)n;
        }
        return w->error;
}

int tar_finish(struct tar_writer *w)
{
        return w->missing > 0 ? -EINVAL : result(w, archive_write_close(w->archive));
}

void tar_writer_free(struct tar_writer *w)
{
        if (!w)
                return;
        if (w->error == 0)
                w->error = -ECANCELED; /* it writes an end now: to nobody */
        if (w->archive)
                (void)archive_write_free(w->archive); /* that can't fail any more */
        archive_entry_free(w->entry);
        free(w);
}
