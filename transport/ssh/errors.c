/* SPDX-License-Identifier: Apache-2.0 */

#include "transport/ssh/errors.h"

#include <errno.h>
#include <libssh2.h>
#include <stddef.h>

static const struct row {
        int code;
        int error;
        bool is_fatal;
} rows[] = {
        {LIBSSH2_ERROR_SOCKET_NONE, -EHOSTUNREACH, true},
        {LIBSSH2_ERROR_BANNER_RECV, -EHOSTUNREACH, true},
        {LIBSSH2_ERROR_BANNER_SEND, -EHOSTUNREACH, true},
        {LIBSSH2_ERROR_INVALID_MAC, -EPROTO, true},
        {LIBSSH2_ERROR_KEX_FAILURE, -EPROTO, true},
        {LIBSSH2_ERROR_ALLOC, -ENOMEM, true},
        {LIBSSH2_ERROR_SOCKET_SEND, -EHOSTUNREACH, true},
        {LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE, -EPROTO, true},
        {LIBSSH2_ERROR_TIMEOUT, -ETIMEDOUT, true},
        {LIBSSH2_ERROR_HOSTKEY_INIT, -EPROTO, true},
        {LIBSSH2_ERROR_HOSTKEY_SIGN, -EPROTO, true},
        {LIBSSH2_ERROR_DECRYPT, -EPROTO, true},
        {LIBSSH2_ERROR_SOCKET_DISCONNECT, -EHOSTUNREACH, true},
        {LIBSSH2_ERROR_PROTO, -EPROTO, true},
        {LIBSSH2_ERROR_PASSWORD_EXPIRED, -EACCES, false},
        {LIBSSH2_ERROR_FILE, -EACCES, false},
        {LIBSSH2_ERROR_METHOD_NONE, -EPROTO, true},
        {LIBSSH2_ERROR_AUTHENTICATION_FAILED, -EACCES, false},
        {LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED, -EACCES, false},
        {LIBSSH2_ERROR_CHANNEL_OUTOFORDER, -EPROTO, true},
        {LIBSSH2_ERROR_CHANNEL_FAILURE, -EMFILE, false},
        {LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED, -EOPNOTSUPP, false},
        {LIBSSH2_ERROR_CHANNEL_UNKNOWN, -EPROTO, false},
        {LIBSSH2_ERROR_CHANNEL_WINDOW_EXCEEDED, -EPROTO, false},
        {LIBSSH2_ERROR_CHANNEL_PACKET_EXCEEDED, -EPROTO, false},
        {LIBSSH2_ERROR_CHANNEL_CLOSED, -EPIPE, false},
        {LIBSSH2_ERROR_CHANNEL_EOF_SENT, -EPIPE, false},
        {LIBSSH2_ERROR_ZLIB, -EPROTO, true},
        {LIBSSH2_ERROR_SOCKET_TIMEOUT, -ETIMEDOUT, true},
        {LIBSSH2_ERROR_REQUEST_DENIED, -EOPNOTSUPP, false},
        {LIBSSH2_ERROR_METHOD_NOT_SUPPORTED, -EPROTO, false},
        {LIBSSH2_ERROR_INVAL, -EINVAL, false},
        {LIBSSH2_ERROR_EAGAIN, -EAGAIN, false},
        {LIBSSH2_ERROR_BUFFER_TOO_SMALL, -EPROTO, true},
        {LIBSSH2_ERROR_BAD_USE, -EPROTO, true},
        {LIBSSH2_ERROR_COMPRESS, -EPROTO, true},
        {LIBSSH2_ERROR_OUT_OF_BOUNDARY, -EPROTO, true},
        {LIBSSH2_ERROR_AGENT_PROTOCOL, -EACCES, false},
        {LIBSSH2_ERROR_SOCKET_RECV, -EHOSTUNREACH, true},
        {LIBSSH2_ERROR_ENCRYPT, -EPROTO, true},
        {LIBSSH2_ERROR_BAD_SOCKET, -EHOSTUNREACH, true},
        {LIBSSH2_ERROR_KNOWN_HOSTS, -EPERM, false},
        {LIBSSH2_ERROR_CHANNEL_WINDOW_FULL, -EPROTO, false},
        {LIBSSH2_ERROR_KEYFILE_AUTH_FAILED, -EACCES, false},
        {LIBSSH2_ERROR_RANDGEN, -EIO, true},
};

static const struct row *find(int code)
{
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                if (rows[i].code == code)
                        return &rows[i];
        return NULL;
}

int ssh_errno(int code)
{
        const struct row *row = find(code);

        if (code >= 0)
                return 0;
        return row ? row->error : -EPROTO;
}

bool ssh_is_fatal(int code)
{
        const struct row *row = find(code);

        return code < 0 && (!row || row->is_fatal);
}
