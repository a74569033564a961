/* SPDX-License-Identifier: Apache-2.0 */
/* A socket that libcurl has connected. */

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include "transport/http/tunnel.h"

static ssize_t plain(ssize_t n)
{
        if (n >= 0)
                return n;
        return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM
                       ? -EAGAIN
                       : -EHOSTUNREACH;
}

static ssize_t coded(CURLcode code, size_t n)
{
        if (code == CURLE_OK)
                return (ssize_t)n;
        return code == CURLE_AGAIN ? -EAGAIN : -EHOSTUNREACH;
}

ssize_t wire_send(struct wire *w, const void *data, size_t size)
{
        CURLcode code;
        size_t n = 0;

        if (w->is_direct)
                return plain(send(w->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL));
        code = curl_easy_send(w->lane->easy, data, size, &n);
        return coded(code, n);
}

ssize_t wire_receive(struct wire *w, void *data, size_t size)
{
        CURLcode code;
        size_t n = 0;

        if (w->is_direct)
                return plain(recv(w->fd, data, size, MSG_DONTWAIT));
        code = curl_easy_recv(w->lane->easy, data, size, &n);
        return coded(code, n);
}

/*
 * libcurl has no word for it: with TLS, our half is closed by its close_notify. That is written to
 * the socket itself, for libcurl's own way there works within its calls only. (Where a proxy has
 * TLS of its own around ours, this ends the connection.)
 */
static int shut_tls(const struct wire *w)
{
        BIO *before = SSL_get_wbio(w->ssl), *direct = BIO_new_socket(w->fd, BIO_NOCLOSE);
        int r, why;

        if (!direct || BIO_up_ref(before) != 1) {
                (void)BIO_free(direct); /* accepts NULL */
                return -EHOSTUNREACH;
        }
        ERR_clear_error();
        SSL_set0_wbio(w->ssl, direct);
        r = SSL_shutdown(w->ssl);
        why = SSL_get_error(w->ssl, r);
        SSL_set0_wbio(w->ssl, before);
        ERR_clear_error();
        if (r >= 0)
                return 0;
        return why == SSL_ERROR_WANT_WRITE ? -EAGAIN : -EHOSTUNREACH;
}

int wire_shut(struct wire *w)
{
        if (w->ssl)
                return shut_tls(w);
        return shutdown(w->fd, SHUT_WR) == 0 ? 0 : -EHOSTUNREACH;
}

void wire_done(struct wire *w)
{
        if (w->lane) {
                (void)curl_multi_remove_handle(w->lane->multi, w->lane->easy); /* it is in */
                lane_free(w->lane);
        }
        *w = (struct wire){.fd = -1};
}
