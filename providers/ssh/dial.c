/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/dial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/ssh/config.h"
#include "providers/ssh/host.h"
#include "providers/ssh/openssh.h"
#include "providers/ssh/ssh.h"
#include "transport/base/cleanup.h"
#include "transport/sftp/sftp.h"
#include "transport/ssh/ssh.h"

#define SOCKET_PATH_MAX 88 /* of 108: the client adds 17 while it makes it */

void dialled_done(struct dialled *d)
{
        sftp_unref(d->sftp);
        if (d->ssh)
                ssh_unref(d->ssh);
        if (d->socket)
                (void)unlink(d->socket); /* the client did, when it ended in peace */
        free(d->socket);
        *d = (struct dialled){0};
}

int dialled_error(const struct dialled *d, char *sentence, size_t size)
{
        int r = d->ssh ? ssh_error(d->ssh, sentence, size) : 0;

        return r == 0 && d->sftp ? sftp_error(d->sftp, sentence, size) : r;
}

/* ---- by libssh2 ---- */

static int start_sftp(struct dialled *d, struct call *c)
{
        struct stream *stream = NULL;
        int r = sftp_new(&d->sftp);

        if (r == 0)
                r = ssh_open(d->ssh, c, SSH_SUBSYSTEM, "sftp", sftp_events(d->sftp), &stream);
        if (r == -EOPNOTSUPP)
                return call_fail(c, r, "%s has no SFTP", host_name(d->host));
        return r < 0 ? r : sftp_start(d->sftp, c, stream, d->is_ordered);
}

static int dial_libssh2(struct dialled *d, enum dial_kind kind, struct call *c)
{
        struct ssh_plan plan;
        int r = ssh_plan_make(d->host->config, c, &plan);

        if (r < 0)
                return r;
        r = ssh_connect(&plan.target, c, &d->ssh);
        ssh_plan_done(&plan);
        if (r < 0)
                return r;
        d->is_ordered = strstr(ssh_banner(d->ssh), "OpenSSH") != NULL;
        return kind == DIAL_PROGRAMS ? 0 : start_sftp(d, c);
}

/* ---- by children ---- */

static int open_client(const struct dialled *d, enum openssh_use use, const char *command,
                       struct call *c, const struct stream_events *events, struct stream **ret)
{
        return openssh_open(d->host->config, d->socket ? use : OPENSSH_ALONE, d->socket, command, c,
                            events, ret);
}

/* Where the first one lends its connection: a path that is too long for a socket isn't lent. */
static int make_socket(struct dialled *d)
{
        if (asprintf(&d->socket, "%s/%s", d->host->ssh->path, d->host->id) < 0) {
                d->socket = NULL;
                return -ENOMEM;
        }
        if (strlen(d->socket) > SOCKET_PATH_MAX)
                free(STEAL(d->socket));
        else
                (void)unlink(d->socket); /* of a former run */
        return 0;
}

static int dial_openssh(struct dialled *d, enum dial_kind kind, struct call *c)
{
        struct stream *stream = NULL;
        int r = kind == DIAL_CONTROL ? make_socket(d) : 0;

        if (r < 0 || kind == DIAL_PROGRAMS)
                return r;
        r = sftp_new(&d->sftp);
        if (r == 0)
                r = open_client(d, OPENSSH_MASTER, NULL, c, sftp_events(d->sftp), &stream);
        if (r == 0)
                r = sftp_start(d->sftp, c, stream, d->is_ordered);
        return r;
}

/* ---- both ---- */

int dial(struct ssh_host *h, enum dial_kind kind, struct call *c, struct dialled *ret)
{
        int r;

        *ret = (struct dialled){.host = h};
        r = h->config->is_openssh ? dial_openssh(ret, kind, c) : dial_libssh2(ret, kind, c);
        return r < 0 ? call_wrap(c, r, "%s: ", host_name(h)) : 0;
}

int dialled_open(const struct dialled *d, struct call *c, const char *command,
                 const struct stream_events *events, struct stream **ret)
{
        if (d->ssh)
                return ssh_open(d->ssh, c, SSH_EXEC, command, events, ret);
        return open_client(d, OPENSSH_SHARED, command, c, events, ret);
}
