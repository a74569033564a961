/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state directory: who may use it (lock), whose sandboxes they are (owner), and the last serial
 * that was given.
 *
 * lock     flock'ed by the mount that uses the directory; a record in it says which one, and
 * whether it only drains. wanted   made by a mount that waits for a draining one, which then stops
 * draining. serial   numbers are reserved in blocks, so that creations need not write: what a crash
 * leaves of a block is not given again.
 */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/sandbox/private.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/escape.h"
#include "transport/base/file.h"
#include "transport/base/log.h"
#include "transport/base/random.h"
#include "transport/base/record.h"
#include "transport/base/units.h"

#define SERIAL_BLOCK 16
#define WANTED_WAIT_NS                                                                             \
        (10 * NS_PER_S) /* a draining mount gives the lock up within 1 s, if it can */
#define UNMOUNTED_NS NS_PER_S /* after its umount has returned it says that it drains */

/* ---- the lock ---- */

/* What the lock file says: "PID MOUNTPOINT" or "PID draining MOUNTPOINT", one line. */
static int write_holder(struct fleet *f, bool is_draining)
{
        char text[4400];
        int n = snprintf(text, sizeof(text), "%d %s%s\n", (int)getpid(),
                         is_draining ? "draining " : "", f->mountpoint);

        if (n < 0 || (size_t)n >= sizeof(text))
                return -ENAMETOOLONG;
        if (ftruncate(f->lock_fd, 0) < 0)
                return -errno;
        return file_pwrite_all(f->lock_fd, text, (size_t)n, 0);
}

static bool read_holder(struct fleet *f, char *where, size_t size)
{
        struct buf text = BUF_INIT(8192);
        const char *at;
        bool is_draining;

        where[0] = '\0';
        if (file_read(f->state_dir, "lock", &text) < 0)
                buf_clear(&text);
        at = buf_str(&text);
        at += strspn(at, "0123456789");
        at += *at == ' ';
        is_draining = strncmp(at, "draining ", 9) == 0;
        if (is_draining)
                at += 9;
        escape_text(at, strcspn(at, "\n"), where, size);
        buf_done(&text);
        return is_draining;
}

static void touch_wanted(struct fleet *f)
{
        int fd = openat(f->state_dir, "wanted", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd >= 0)
                (void)close(fd); /* its being there is all */
}

static int take_lock(struct fleet *f, struct call *c)
{
        uint64_t until = clock_after(WANTED_WAIT_NS), soon = clock_after(UNMOUNTED_NS);
        char where[1024];

        f->lock_fd = openat(f->state_dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (f->lock_fd < 0)
                return call_fail_errno(c, -errno, "open %s/lock", f->state_path);
        while (flock(f->lock_fd, LOCK_EX | LOCK_NB) < 0) {
                const struct timespec pause = {.tv_nsec = 20 * (long)NS_PER_MS};
                bool is_draining;

                if (errno == EINTR)
                        continue;
                if (errno != EWOULDBLOCK)
                        return call_fail_errno(c, -errno, "lock %s", f->state_path);
                is_draining = read_holder(f, where, sizeof(where));
                if (clock_mono_ns() >= (is_draining ? until : soon))
                        return call_fail(
                                c, -EBUSY,
                                "the state directory %s is in use by the mount on %s; give another with -o state=DIR",
                                f->state_path, where[0] ? where : "an unknown place");
                if (is_draining)
                        touch_wanted(f);
                (void)nanosleep(&pause, NULL);
        }
        (void)unlinkat(f->state_dir, "wanted", 0); /* seldom there */
        if (write_holder(f, false) < 0)
                return call_fail(c, -EIO, "write %s/lock", f->state_path);
        return 0;
}

void fleet_state_draining(struct fleet *f)
{
        if (write_holder(f, true) < 0)
                log_warning("%s/lock: can't say that we are draining, ignoring", f->state_path);
}

bool fleet_state_is_wanted(struct fleet *f)
{
        return faccessat(f->state_dir, "wanted", F_OK, 0) == 0;
}

/* ---- owner and serial ---- */

static int load_owner(struct fleet *f, struct call *c)
{
        _cleanup_(record_freep) struct record *r = NULL;
        char id[RANDOM_ID_SIZE];
        const char *owner;
        int x = record_read(f->state_dir, "owner", &r);

        if (x == 0) {
                owner = record_get(r, "id");
                if (!owner || owner[0] == '\0' || strlen(owner) >= sizeof(f->owner))
                        return call_fail(c, -EBADMSG, "%s/owner is damaged", f->state_path);
                (void)snprintf(f->owner, sizeof(f->owner), "%s", owner);
                return 0;
        }
        if (x != -ENOENT)
                return call_fail_errno(c, x, "read %s/owner", f->state_path);
        x = random_id(id);
        r = record_new();
        if (x == 0)
                x = r ? record_add(r, "id", id) : -ENOMEM;
        if (x == 0)
                x = record_write(r, f->state_dir, "owner", RECORD_SYNC);
        if (x < 0)
                return call_fail_errno(c, x, "write %s/owner", f->state_path);
        (void)snprintf(f->owner, sizeof(f->owner), "%s", id);
        return 0;
}

static int write_serial(struct fleet *f, uint64_t last, enum record_sync sync)
{
        _cleanup_(record_freep) struct record *r = record_new();
        int x = r ? record_addf(r, "last", "%" PRIu64, last) : -ENOMEM;

        return x < 0 ? x : record_write(r, f->state_dir, "serial", sync);
}

static int load_serial(struct fleet *f, struct call *c)
{
        _cleanup_(record_freep) struct record *r = NULL;
        uint64_t last = 0;
        const char *text;
        int x = record_read(f->state_dir, "serial", &r);

        if (x < 0 && x != -ENOENT &&
            x != -EBADMSG) /* a damaged one: the sandboxes' records say more, see fleet_load */
                return call_fail_errno(c, x, "read %s/serial", f->state_path);
        text = x == 0 ? record_get(r, "last") : NULL;
        if (text && units_parse_count(text, INT64_MAX, &last) < 0)
                last = 0;
        mutex_lock(&f->lock);
        f->last_serial = f->saved_serial = last;
        mutex_unlock(&f->lock);
        return 0;
}

int fleet_next_serial(struct fleet *f, uint64_t *ret)
{
        uint64_t serial, reserve = 0;
        int r = 0;

        mutex_lock(&f->lock);
        serial = ++f->last_serial;
        if (serial > f->saved_serial)
                reserve = f->saved_serial = serial + SERIAL_BLOCK;
        mutex_unlock(&f->lock);
        if (reserve > 0)
                r = write_serial(f, reserve, RECORD_NO_SYNC);
        if (r == 0)
                *ret = serial;
        return r;
}

/* ---- open and close ---- */

static int check_dir(struct fleet *f, struct call *c)
{
        struct stat st;

        if (fstat(f->state_dir, &st) < 0)
                return call_fail_errno(c, -errno, "stat %s", f->state_path);
        if (st.st_uid != geteuid())
                return call_fail(c, -EACCES, "the state directory %s belongs to another user",
                                 f->state_path);
        if (st.st_mode & 022)
                return call_fail(c, -EACCES, "others can write the state directory %s (mode %04o)",
                                 f->state_path, (unsigned)st.st_mode & 07777);
        return 0;
}

static int make_subdir(struct fleet *f, const char *name, mode_t mode, struct call *c)
{
        if (mkdirat(f->state_dir, name, 0700) < 0 && errno != EEXIST)
                return call_fail_errno(c, -errno, "mkdir %s/%s", f->state_path, name);
        if (fchmodat(f->state_dir, name, mode, 0) < 0)
                return call_fail_errno(c, -errno, "chmod %s/%s", f->state_path, name);
        return 0;
}

int fleet_state_open(struct fleet *f, const struct fleet_config *config, struct call *c)
{
        mode_t pass = geteuid() == 0
                              ? 0711
                              : 0700; /* mounted by root, workspaces below belong to others */
        int r = file_make_dirs(config->state_path, pass);

        if (r < 0)
                return call_fail_errno(c, r, "make the state directory %s", config->state_path);
        f->state_dir = open(config->state_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (f->state_dir < 0)
                return call_fail_errno(c, -errno, "open the state directory %s",
                                       config->state_path);
        r = check_dir(f, c);
        if (r == 0)
                r = take_lock(f, c);
        if (r == 0 && fchmod(f->state_dir, pass) < 0)
                r = call_fail_errno(c, -errno, "chmod %s", f->state_path);
        if (r == 0)
                r = make_subdir(f, "sandboxes", 0700, c);
        if (r == 0)
                r = make_subdir(f, "providers", pass, c);
        if (r == 0)
                r = load_owner(f, c);
        if (r == 0)
                r = load_serial(f, c);
        return r;
}

void fleet_state_close(struct fleet *f, bool is_clean)
{
        if (is_clean && f->state_dir >= 0 && f->lock_fd >= 0 && f->saved_serial > f->last_serial)
                (void)write_serial(f, f->last_serial, RECORD_SYNC); /* else numbers are skipped */
        if (f->lock_fd >= 0)
                (void)close(f->lock_fd); /* gives the lock up */
        if (f->state_dir >= 0)
                (void)close(f->state_dir);
        f->lock_fd = f->state_dir = -1;
}
