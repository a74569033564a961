/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the inside of a sandbox looks like. From the host: system directories, read-only; from /etc
 * only what programs need to run; the workspace. Nothing else: no home, /run, socket or /sys.
 */

#include "providers/local/bwrap.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/local/plan.h"
#include "providers/provider.h"
#include "transport/base/buf.h"

/* Words up to a NULL; the first failure sticks. */
static void add(struct buf *to, int *r, ...)
{
        va_list words;
        const char *word;

        va_start(words, r);
        while (*r == 0 && (word = va_arg(words, const char *))) {
                *r = buf_add_str(to, word);
                if (*r == 0)
                        *r = buf_add_char(to, '\0');
        }
        va_end(words);
}

static void add_namespaces(struct buf *to, int *r, const struct plan *p)
{
        /* --disable-userns wants --unshare-user by name. No --die-with-parent: it outlives us. */
        add(to, r, "--unshare-all", "--unshare-user", NULL);
        if (p->has_net)
                add(to, r, "--share-net", NULL);
        add(to, r, "--disable-userns", "--new-session", "--as-pid-1", "--uid", "1000", "--gid",
            "1000", "--hostname", p->name, NULL);
}

/* Directories that are links into /usr stay links. */
static void add_system(struct buf *to, int *r)
{
        static const char *const names[] = {"/bin",   "/sbin",   "/lib", "/lib32",
                                            "/lib64", "/libx32", NULL};

        add(to, r, "--ro-bind", "/usr", "/usr", NULL);
        for (size_t i = 0; names[i]; i++) {
                char target[PATH_MAX];
                struct stat st;
                ssize_t n;

                if (lstat(names[i], &st) < 0)
                        continue;
                n = S_ISLNK(st.st_mode) ? readlink(names[i], target, sizeof(target) - 1) : -1;
                if (n > 0) {
                        target[n] = '\0';
                        add(to, r, "--symlink", target, names[i], NULL);
                } else if (S_ISDIR(st.st_mode)) {
                        add(to, r, "--ro-bind", names[i], names[i], NULL);
                }
        }
}

static void add_file(struct buf *to, int *r, int fd, const char *path)
{
        char number[16];

        (void)snprintf(number, sizeof(number), "%d", fd);
        add(to, r, "--perms", "0644", "--file", number, path, NULL);
}

static void add_etc(struct buf *to, int *r, const struct plan *p, const struct bwrap_fds *fds)
{
        static const char *const allowed[] = {
                "/etc/ld.so.cache",  "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload",
                "/etc/alternatives", "/etc/ssl/certs",  "/etc/localtime",    NULL};

        add(to, r, "--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl",
            NULL);
        for (size_t i = 0; allowed[i]; i++)
                add(to, r, "--ro-bind-try", allowed[i], allowed[i], NULL);
        add_file(to, r, fds->passwd, "/etc/passwd");
        add_file(to, r, fds->group, "/etc/group");
        add_file(to, r, fds->hosts, "/etc/hosts");
        add_file(to, r, fds->hostname, "/etc/hostname");
        add_file(to, r, fds->nsswitch, "/etc/nsswitch.conf");
        if (p->has_net)
                add(to, r, "--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf", NULL);
}

static void add_own(struct buf *to, int *r)
{
        add(to, r, "--proc", "/proc", "--dev", "/dev", NULL);
        add(to, r, "--perms", "1777", "--tmpfs", "/tmp", NULL);
        add(to, r, "--perms", "0755", "--dir", "/home", "--perms", "0700", "--tmpfs",
            "/home/sandbox", NULL);
        add(to, r, "--perms", "0755", "--dir", "/run", "--perms", "0755", "--dir", "/var",
            "--symlink", "../tmp", "/var/tmp", NULL);
}

int bwrap_args(struct buf *to, const struct plan *p, const char *workspace,
               const struct bwrap_fds *fds)
{
        char info[16];
        int r = 0;

        (void)snprintf(info, sizeof(info), "%d", fds->info);
        add_namespaces(to, &r, p);
        add_system(to, &r);
        add_etc(to, &r, p, fds);
        add_own(to, &r);
        add(to, &r, p->is_readonly ? "--ro-bind" : "--bind", workspace, p->workdir, NULL);
        for (size_t i = 0; i < p->mount_count; i++)
                add(to, &r, p->mounts[i].is_readonly ? "--ro-bind" : "--bind", p->mounts[i].host,
                    p->mounts[i].inside, NULL);
        add(to, &r, "--remount-ro", "/", "--chdir", p->workdir, "--info-fd", info, NULL);
        return r;
}

int bwrap_hosts(struct buf *to, const struct plan *p)
{
        return buf_addf(to, "127.0.0.1 localhost %s\n::1 localhost ip6-localhost\n", p->name);
}
