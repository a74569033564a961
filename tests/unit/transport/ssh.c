/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of transport/ssh/ that need no server; the rest is in tests/ssh/test_transport.py. */

#include <errno.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/ssh/base64.h"
#include "transport/ssh/errors.h"
#include "transport/ssh/keyfile.h"
#include "transport/ssh/sock.h"

static void errors_of_libssh2_are_errno(void)
{
        CHECK_EQ(ssh_errno(0), 0);
        CHECK_EQ(ssh_errno(17), 0);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_EAGAIN), -EAGAIN);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_SOCKET_DISCONNECT), -EHOSTUNREACH);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_SOCKET_RECV), -EHOSTUNREACH);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_TIMEOUT), -ETIMEDOUT);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_AUTHENTICATION_FAILED), -EACCES);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED), -EACCES);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_CHANNEL_FAILURE), -EMFILE);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED), -EOPNOTSUPP);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_CHANNEL_CLOSED), -EPIPE);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_ALLOC), -ENOMEM);
        CHECK_EQ(ssh_errno(LIBSSH2_ERROR_PROTO), -EPROTO);
        CHECK_EQ(ssh_errno(-4711), -EPROTO);
}

static void every_error_has_an_errno(void)
{
        for (int code = LIBSSH2_ERROR_RANDGEN; code < 0; code++)
                CHECK(ssh_errno(code) < 0 && ssh_errno(code) > -200);
}

static void only_the_connections_errors_end_it(void)
{
        CHECK(!ssh_is_fatal(0));
        CHECK(!ssh_is_fatal(4));
        CHECK(!ssh_is_fatal(LIBSSH2_ERROR_EAGAIN));
        CHECK(!ssh_is_fatal(LIBSSH2_ERROR_CHANNEL_FAILURE));
        CHECK(!ssh_is_fatal(LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED));
        CHECK(!ssh_is_fatal(LIBSSH2_ERROR_AUTHENTICATION_FAILED));
        CHECK(ssh_is_fatal(LIBSSH2_ERROR_SOCKET_SEND));
        CHECK(ssh_is_fatal(LIBSSH2_ERROR_DECRYPT));
        CHECK(ssh_is_fatal(LIBSSH2_ERROR_ALLOC));
        CHECK(ssh_is_fatal(-4711));
}

static void base64_as_in_rfc_4648(void)
{
        static const char *const pairs[][2] = {
                {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
                {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"foobar", "Zm9vYmFy"}};

        for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
                struct buf text = BUF_INIT(100), back = BUF_INIT(100);

                CHECK_EQ(base64_encode(&text, pairs[i][0], strlen(pairs[i][0])), 0);
                CHECK_STR(buf_str(&text), pairs[i][1]);
                CHECK_EQ(base64_decode(&back, pairs[i][1], strlen(pairs[i][1])), 0);
                CHECK_STR(buf_str(&back), pairs[i][0]);
                buf_done(&text);
                buf_done(&back);
        }
}

static void base64_of_all_bytes_comes_back(void)
{
        unsigned char all[256];
        struct buf text = BUF_INIT(1000), back = BUF_INIT(1000);

        for (unsigned i = 0; i < sizeof(all); i++)
                all[i] = (unsigned char)i;
        CHECK_EQ(base64_encode(&text, all, sizeof(all)), 0);
        CHECK_EQ(buf_add_str(&text, "\r\n"), 0);
        CHECK_EQ(base64_decode(&back, text.data, text.size), 0);
        CHECK_EQ(back.size, sizeof(all));
        CHECK(memcmp(back.data, all, sizeof(all)) == 0);
        buf_done(&text);
        buf_done(&back);
}

static void what_is_not_base64_is_refused(void)
{
        static const char *const bad[] = {"Zg=a", "Z*==", "\xff", "Zg-_"};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct buf to = BUF_INIT(100);

                CHECK_EQ(base64_decode(&to, bad[i], strlen(bad[i])), -EINVAL);
                CHECK_EQ(to.size, 0);
                buf_done(&to);
        }
}

static int look(const char *text, struct keyfile *k)
{
        *k = (struct keyfile){.text = BUF_INIT(65536)};
        CHECK_EQ(buf_add_str(&k->text, text), 0);
        return keyfile_look(k);
}

/* A file of OpenSSH's format with a cipher and a type of key. */
static void make_openssh(const char *cipher, const char *type, struct buf *to)
{
        struct buf raw = BUF_INIT(1000), body = BUF_INIT(2000);
        const char *const strings[] = {cipher, "none", ""};

        CHECK_EQ(buf_add(&raw, "openssh-key-v1", 15), 0);
        for (size_t i = 0; i < 3; i++) {
                CHECK_EQ(buf_add(&raw, "\0\0\0", 3), 0);
                CHECK_EQ(buf_add_char(&raw, (char)strlen(strings[i])), 0);
                CHECK_EQ(buf_add_str(&raw, strings[i]), 0);
        }
        CHECK_EQ(buf_add(&raw, "\0\0\0\1\0\0\0", 7), 0);
        CHECK_EQ(buf_add_char(&raw, (char)(strlen(type) + 4)), 0);
        CHECK_EQ(buf_add(&raw, "\0\0\0", 3), 0);
        CHECK_EQ(buf_add_char(&raw, (char)strlen(type)), 0);
        CHECK_EQ(buf_add_str(&raw, type), 0);
        CHECK_EQ(base64_encode(&body, raw.data, raw.size), 0);
        CHECK_EQ(buf_addf(to,
                          "-----BEGIN OPENSSH PRIVATE KEY-----\n%s\n"
                          "-----END OPENSSH PRIVATE KEY-----\n",
                          buf_str(&body)),
                 0);
        buf_done(&raw);
        buf_done(&body);
}

static void keys_show_their_type_and_lock(void)
{
        static const struct {
                const char *cipher, *type;
                bool is_encrypted, is_rsa;
        } rows[] = {
                {"none", "ssh-ed25519", false, false},
                {"none", "ssh-rsa", false, true},
                {"aes256-ctr", "ssh-ed25519", true, false},
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                struct buf text = BUF_INIT(4096);
                struct keyfile k;

                make_openssh(rows[i].cipher, rows[i].type, &text);
                CHECK_EQ(look(buf_str(&text), &k), 0);
                CHECK_EQ(k.is_encrypted, rows[i].is_encrypted);
                CHECK_EQ(k.is_rsa, rows[i].is_rsa);
                keyfile_done(&k);
                buf_done(&text);
        }
}

static void pem_keys_show_them_too(void)
{
        struct keyfile k;

        CHECK_EQ(look("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", &k),
                 0);
        CHECK(k.is_rsa && !k.is_encrypted);
        keyfile_done(&k);
        CHECK_EQ(look("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n"
                      "-----END EC PRIVATE KEY-----\n",
                      &k),
                 0);
        CHECK(!k.is_rsa && k.is_encrypted);
        keyfile_done(&k);
        CHECK_EQ(look("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"
                      "-----END ENCRYPTED PRIVATE KEY-----\n",
                      &k),
                 0);
        CHECK(k.is_encrypted);
        keyfile_done(&k);
}

static void damaged_keys_are_refused(void)
{
        static const char *const bad[] = {
                "",
                "ssh-ed25519 AAAA comment\n",
                "-----BEGIN OPENSSH PRIVATE KEY-----\n",
                "-----BEGIN OPENSSH PRIVATE KEY-----",
                "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
                "-----BEGIN OPENSSH PRIVATE KEY-----\n*\n-----END OPENSSH PRIVATE KEY-----\n",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        };
        struct keyfile k;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                CHECK_EQ(look(bad[i], &k), -EINVAL);
                keyfile_done(&k);
        }
        CHECK_EQ(keyfile_read("/nonexistent", &k), -ENOENT);
        keyfile_done(&k);
        CHECK_EQ(keyfile_read("/dev/null", &k), -EINVAL);
        keyfile_done(&k);
}

static void cut_keys_are_read_within_their_bounds(void)
{
        struct buf text = BUF_INIT(4096);
        char *copy;

        make_openssh("none", "ssh-ed25519", &text);
        copy = strdup(buf_str(&text));
        if (!CHECK(copy))
                return;
        for (size_t size = text.size; size > 0; size--) {
                struct keyfile k = {.text = BUF_INIT(4096)};

                CHECK_EQ(buf_add(&k.text, copy, size), 0);
                (void)keyfile_look(&k); /* whatever it says */
                keyfile_done(&k);
        }
        free(copy);
        buf_done(&text);
}

static void libssh2_gets_so_much_memory_and_no_more(void)
{
        struct sock k;
        void *abstract = &k, *all, *little;

        CHECK_EQ(sock_init(&k, -1, -1), 0);
        CHECK(sock_alloc(SOCK_MEMORY_MAX + 1, &abstract) == NULL);
        CHECK(sock_alloc(SIZE_MAX, &abstract) == NULL);
        all = sock_alloc(SOCK_MEMORY_MAX - k.memory - 10, &abstract);
        little = sock_alloc(10, &abstract);
        CHECK(all && little);
        CHECK(sock_alloc(1, &abstract) == NULL);
        libssh2_free(k.session, little);
        CHECK(sock_alloc(1, &abstract) != NULL);
        sock_done(&k); /* frees what was forgotten */
        CHECK_EQ(k.memory, 0);
}

int main(void)
{
        RUN(errors_of_libssh2_are_errno);
        RUN(every_error_has_an_errno);
        RUN(only_the_connections_errors_end_it);
        RUN(base64_as_in_rfc_4648);
        RUN(base64_of_all_bytes_comes_back);
        RUN(what_is_not_base64_is_refused);
        RUN(keys_show_their_type_and_lock);
        RUN(pem_keys_show_them_too);
        RUN(damaged_keys_are_refused);
        RUN(cut_keys_are_read_within_their_bounds);
        RUN(libssh2_gets_so_much_memory_and_no_more);
        return check_result();
}
