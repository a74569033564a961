/* SPDX-License-Identifier: Apache-2.0 */

#include "transport/archive/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "transport/archive/name.h"
#include "transport/base/cleanup.h"

struct reader {
        struct archive *archive;
        struct tar_source *from;
        const struct tar_limits *limits;
        struct tar_sink *to;
        unsigned char *data; /* of the file that is read */
        size_t room;
        uint64_t left; /* bytes that may still come */
        size_t count;
        int error; /* the source's, or of our own making */
};

static la_ssize_t on_wanted(struct archive *a, void *ctx, const void **ret)
{
        struct reader *r = ctx;
        ssize_t n = r->from->read(r->from, ret);

        if (n < 0) {
                r->error = (int)n;
                archive_set_error(a, EIO, "the source failed");
                return -1;
        }
        return n;
}

static int fault(const struct reader *r)
{
        if (r->error != 0)
                return r->error;
        return archive_errno(r->archive) == ENOMEM ? -ENOMEM : -EPROTO;
}

static int make_room(struct reader *r, size_t size)
{
        unsigned char *more;

        if (size <= r->room)
                return 0;
        more = realloc(r->data, size);
        if (!more)
                return -ENOMEM;
        r->data = more;
        r->room = size;
        return 0;
}

/* Exactly what its header says. */
static int read_content(struct reader *r, size_t size)
{
        size_t at = 0;
        int e = make_room(r, size);

        while (e == 0 && at < size) {
                la_ssize_t n = archive_read_data(r->archive, r->data + at, size - at);

                if (n <= 0)
                        return fault(r);
                at += (size_t)n;
        }
        return e;
}

static bool is_wanted(struct archive_entry *from, const char *name)
{
        mode_t type = archive_entry_filetype(from);

        return (type == AE_IFREG || type == AE_IFDIR) && !archive_entry_hardlink(from) &&
               !archive_entry_symlink(from) && archive_entry_size(from) >= 0 && name &&
               tar_name_is_right(name);
}

/* It may begin with "./"; a directory's may end with its '/'. */
static char *name_of(struct archive_entry *from)
{
        const char *name = archive_entry_pathname(from);
        size_t size = name ? strlen(name) : 0;

        if (size > TAR_NAME_MAX)
                return NULL;
        if (size > 2 && strncmp(name, "./", 2) == 0) {
                name += 2;
                size -= 2;
        }
        if (size > 1 && name[size - 1] == '/' && archive_entry_filetype(from) == AE_IFDIR)
                size--;
        return name ? strndup(name, size) : NULL;
}

static struct timespec time_of(time_t seconds, long ns)
{
        return (struct timespec){.tv_sec = seconds, .tv_nsec = ns >= 0 && ns <= 999999999 ? ns : 0};
}

static int take(struct reader *r, struct archive_entry *from)
{
        _cleanup_(freep) char *name = name_of(from);
        struct tar_entry e = {.name = name, .mode = archive_entry_perm(from) & 07777};
        int error = 0;

        if (++r->count > r->limits->count)
                return -E2BIG;
        if (!is_wanted(from, name))
                return 0;
        e.is_dir = archive_entry_filetype(from) == AE_IFDIR;
        e.size = e.is_dir ? 0 : (uint64_t)archive_entry_size(from);
        e.mtime = time_of(archive_entry_mtime(from), archive_entry_mtime_nsec(from));
        if (archive_entry_ctime_is_set(from))
                e.ctime = time_of(archive_entry_ctime(from), archive_entry_ctime_nsec(from));
        if (e.size > r->limits->file_bytes)
                return r->to->file(r->to, &e, NULL);
        if (e.size > r->left)
                return -E2BIG;
        r->left -= e.size;
        error = read_content(r, (size_t)e.size);
        return error < 0 ? error : r->to->file(r->to, &e, r->data);
}

static int set_up(struct reader *r)
{
        r->left = r->limits->bytes;
        r->archive = archive_read_new();
        if (!r->archive || make_room(r, 1) < 0)
                return -ENOMEM;
        if (archive_read_support_format_tar(r->archive) != ARCHIVE_OK)
                return -ENOMEM;
        return archive_read_open(r->archive, r, NULL, on_wanted, NULL) == ARCHIVE_OK ? 0 : fault(r);
}

int tar_read(struct tar_source *from, const struct tar_limits *limits, struct tar_sink *to)
{
        struct reader r = {.from = from, .limits = limits, .to = to};
        struct archive_entry *entry;
        int e = set_up(&r), got = ARCHIVE_OK;

        while (e == 0) {
                got = archive_read_next_header(r.archive, &entry);
                if (got == ARCHIVE_EOF)
                        break;
                e = got >= ARCHIVE_WARN ? take(&r, entry) : fault(&r);
        }
        (void)archive_read_free(r.archive); /* nothing more is wanted of it */
        free(r.data);
        return e;
}
