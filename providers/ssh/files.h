/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of the ssh provider's files, for files*.c only:
 *
 *      files.c                      what is asked and read
 *      files_pull.c                 many files at once
 *      files_list.c, files_find.c   listings, by find of the helper shell or by SFTP
 *      files_apply.c                changes, cut into windows (files_window.h)
 *      files_left.c                 temporary names that could not be removed
 *      files_after.c                what changes made
 *      files_lanes.c                which connection
 *      files_why.c                  what an error really was
 *
 * Times: find tells nanoseconds, SFTP seconds (tv_nsec 0). Where the host has such a find, every
 *        listing and box_stat comes from it, and what changes made. SFTP sets seconds; touch adds
 *        the rest.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "providers/posix/place.h"
#include "providers/shell/find.h"
#include "providers/ssh/ssh.h"
#include "transport/base/buf.h"
#include "transport/sftp/batch.h"

/* One call: the sandbox, where it is, and a connection. */
struct spot {
        struct ssh_box *box;
        const struct ssh_paths *paths;
        struct ssh_link *link; /* HOST_CONTROL */
        struct sftp *sftp; /* of the link */
        bool has_shell;
        bool has_find; /* of GNU, by the helper shell */
        bool has_touch; /* likewise, with nanoseconds */
        bool has_tar; /* to unpack a stream */
        bool has_mv; /* that takes no directory for a place: -T */
};

int ssh_spot_init(struct spot *s, struct box *b, struct call *c);
void ssh_spot_done(struct spot *s);
/* The absolute path of `path`; to free. NULL: out of memory. */
char *ssh_spot_path(const struct spot *s, const char *path);

/* ---- files_find.c ---- */

/* Attributes of one path by find. -ENOENT: not there, or it couldn't be looked at. */
int find_stat(struct spot *s, struct call *c, const char *path, struct stat *ret);

/* ---- files_after.c ---- */

/* Whether touch alone sets the times of this CHANGE_SET: SFTP would also set the other time, */
bool is_set_by_touch(const struct spot *s, const struct change *x);
/* or follow the link that it is. */
bool follows_links(const struct spot *s);
/*
 * When changes are done: the times of those that have nanoseconds, and what each file is now. One
 * round trip; each change keeps its result, whatever comes of this. What is known already of each:
 */
enum after_mark {
        AFTER_HAS_NS = 1 << 0, /* its time is set, nanoseconds and all */
        AFTER_IS_TOLD = 1 << 1, /* and what it is now */
};
void after_changes(struct spot *s, struct call *c, struct change *changes,
                   const unsigned char *marks, size_t count);
/* Whether a file is as this CHANGE_STORE, with an mtime, left it. */
bool is_as_stored(const struct change *x, const struct stat *st);

/* ---- files_why.c ---- */

/* One change that ended with `error` at the server, which says little more than "failure". */
struct why {
        const struct change *x;
        int error;
        size_t path_looks, other_looks; /* files_why.c's */
};

/* What their errors really are: what is there now is looked at, of all in one round trip. */
void why_changes(const struct spot *s, struct call *c, struct why *list, size_t count);
/* The same of what was only to be looked at or read; errors[i] of paths[i] is replaced. */
void why_paths(const struct spot *s, struct call *c, const char *const *paths, int *errors,
               size_t count);
int why_path(const struct spot *s, struct call *c, const char *path, int error);
int why_listing(const struct spot *s, struct call *c, const char *path, int error);

/* ---- files_lanes.c ---- */

/*
 * From how many bytes of a file on this connection pays, over a way of that length; UINT64_MAX never.
 * On a long one each carries so much a round trip. On a short one a new connection costs as much time
 * of processors as 15 MiB do, and what limits is that one thread here, and one process there,
 * enciphers for each: two do most of what can be done.
 */
uint64_t lanes_pay_from(unsigned lane, uint64_t round_trip_ns);
/*
 * Those of the bulk connections that are wanted (by enum host_lane) and there already; the others
 * are dialled meanwhile. The count; each to link_unref.
 */
size_t lanes_take(struct ssh_host *h, const bool *is_wanted, struct ssh_link **ret);
/*
 * One operation on each of several connections, all at the same time; those whose error is set
 * beforehand are left out. 0 when all have their result; else none counts.
 */
int lanes_run(struct ssh_link *const *links, struct sftp_op *ops, size_t count, struct call *c);

/* ---- files_pull.c ---- */

/* Whether so many files are had sooner by a tar of the host's. */
bool pull_pays(const struct spot *s, size_t count);
/*
 * Tell those that can be had so, and mark them; the others are for SFTP. Errors: the sink's,
 * -ETIMEDOUT, -EINTR.
 */
int pull_files(struct spot *s, struct call *c, const char *const *paths, size_t count,
               size_t size_max, struct file_sink *to, bool *is_told);

/* ---- files_left.c ---- */

/* How long requests took that took little more than the way; and what to expect: 0 not known. */
void files_took(struct ssh_box *b, uint64_t ns);
uint64_t files_round_trip(struct ssh_box *b);

/* A temporary name that couldn't be removed, the connection being gone. */
void left_add(struct ssh_box *b, bool is_dir, const char *path);
/* Remove those that are left, over a new one. */
void left_remove(struct spot *s, struct call *c);
