/* SPDX-License-Identifier: Apache-2.0 */
/* TLS: whom we trust, whom we show ourselves as, and upgraded connections behind it. */

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "tests/unit/transport/http_server.h"

/* ---- certificates of the test's own ---- */

struct identity {
        X509 *cert;
        EVP_PKEY *key;
};

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
        X509V3_CTX ctx;
        X509_EXTENSION *e;

        X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
        e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
        if (CHECK(e))
                CHECK_EQ(X509_add_ext(cert, e, -1), 1);
        X509_EXTENSION_free(e);
}

/* `by` NULL: an authority of its own; else for the host `name`. */
static struct identity make(const struct identity *by, const char *name)
{
        struct identity i = {.cert = X509_new(), .key = EVP_EC_gen("P-256")};
        X509_NAME *subject = X509_get_subject_name(i.cert);
        static long serial;
        char san[64];

        CHECK_EQ(X509_set_version(i.cert, 2), 1);
        CHECK_EQ(ASN1_INTEGER_set(X509_get_serialNumber(i.cert), ++serial), 1);
        CHECK(X509_gmtime_adj(X509_getm_notBefore(i.cert), -3600));
        CHECK(X509_gmtime_adj(X509_getm_notAfter(i.cert), 3600));
        CHECK_EQ(X509_set_pubkey(i.cert, i.key), 1);
        CHECK_EQ(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                            (const unsigned char *)(by ? name : "authority"), -1,
                                            -1, 0),
                 1);
        CHECK_EQ(X509_set_issuer_name(i.cert, by ? X509_get_subject_name(by->cert) : subject), 1);
        (void)snprintf(san, sizeof(san), "%s:%s", name[0] >= '0' && name[0] <= '9' ? "IP" : "DNS",
                       name);
        if (by)
                add_extension(i.cert, by->cert, NID_subject_alt_name, san);
        else
                add_extension(i.cert, i.cert, NID_basic_constraints, "critical,CA:TRUE");
        CHECK(X509_sign(i.cert, by ? by->key : i.key, EVP_sha256()) > 0);
        return i;
}

static void drop(struct identity *i)
{
        X509_free(i->cert);
        EVP_PKEY_free(i->key);
}

static char *write_pem(const struct identity *i, bool is_key)
{
        char *path = strdup("/tmp/sbxfs-pem-XXXXXX");
        int fd = mkstemp(path);
        FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

        if (CHECK(f)) {
                CHECK_EQ(is_key ? PEM_write_PrivateKey(f, i->key, NULL, NULL, 0, NULL, NULL)
                                : PEM_write_X509(f, i->cert),
                         1);
                CHECK_EQ(fclose(f), 0);
        }
        return path;
}

static void forget(char *path)
{
        CHECK_EQ(unlink(path), 0);
        free(path);
}

/* ---- the server ---- */

static void serve(struct conn *k)
{
        if (!conn_header(k, "Upgrade")) {
                (void)conn_reply(k, 200, "", "over TLS");
                return;
        }
        (void)conn_say(k, "HTTP/1.1 101 UPGRADED\r\n\r\n");
        if (conn_is(k, "/reset")) {
                conn_reset(k);
                (void)server_count(k->server);
                return;
        }
        while (conn_read(k)) {
                (void)conn_write(k, k->in.data, k->in.size);
                buf_clear(&k->in);
        }
        /* Its end was said, not just seen. */
        CHECK(SSL_get_shutdown(k->ssl) & SSL_RECEIVED_SHUTDOWN);
        (void)conn_say(k, "bye");
        (void)SSL_shutdown(k->ssl);
        conn_close(k);
}

struct fixture {
        struct identity authority, server_id;
        char *ca_file;
        struct server server;
        struct http_config config;
        struct http *http;
        struct http_reply reply;
        struct call call;
};

static void begin(struct fixture *f, const char *name, bool asks_client)
{
        *f = (struct fixture){0};
        f->authority = make(NULL, "");
        f->server_id = make(&f->authority, name);
        f->ca_file = write_pem(&f->authority, false);
        f->server.tls = SSL_CTX_new(TLS_server_method());
        CHECK_EQ(SSL_CTX_use_certificate(f->server.tls, f->server_id.cert), 1);
        CHECK_EQ(SSL_CTX_use_PrivateKey(f->server.tls, f->server_id.key), 1);
        if (asks_client) {
                SSL_CTX_set_verify(f->server.tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                                   NULL);
                CHECK_EQ(SSL_CTX_load_verify_locations(f->server.tls, f->ca_file, NULL), 1);
        }
        server_start(&f->server, serve, false);
        f->config = (struct http_config){.ca_file = f->ca_file};
}

static int ask(struct fixture *f)
{
        http_unref(f->http);
        f->http = connect_to(&f->server, &f->config);
        return get(f->http, &f->call, "/", &f->reply);
}

static void finish(struct fixture *f)
{
        http_reply_done(&f->reply);
        http_unref(f->http);
        server_stop(&f->server);
        SSL_CTX_free(f->server.tls);
        forget(f->ca_file);
        drop(&f->server_id);
        drop(&f->authority);
}

static void a_named_authority_is_trusted(void)
{
        struct fixture f;

        begin(&f, "127.0.0.1", false);
        CHECK_EQ(ask(&f), 0);
        CHECK_STR(buf_str(&f.reply.body), "over TLS");
        CHECK_EQ(get(f.http, &f.call, "/", &f.reply), 0);
        CHECK_EQ(server_connections(&f.server), 1);
        finish(&f);
}

static void *ask_often(void *arg)
{
        struct fixture *f = arg;
        struct http_reply reply = {0};
        struct call c;

        for (int i = 0; i < 5; i++)
                CHECK_EQ(get(f->http, &c, "/", &reply), 0);
        http_reply_done(&reply);
        return NULL;
}

static void many_ask_at_once(void)
{
        pthread_t threads[8];
        struct fixture f;

        begin(&f, "127.0.0.1", false);
        f.http = connect_to(&f.server, &f.config);
        for (int i = 0; i < 8; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, ask_often, &f), 0);
        for (int i = 0; i < 8; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
        finish(&f);
}

static void others_are_not(void)
{
        struct fixture f;
        struct identity other;
        char *other_file;

        begin(&f, "127.0.0.1", false);
        f.config.ca_file = NULL; /* the system's */
        CHECK_EQ(ask(&f), -EPERM);
        CHECK(!f.reply.was_sent);
        CHECK(strstr(f.call.sentence, "certificate"));
        other = make(NULL, "");
        other_file = write_pem(&other, false);
        f.config.ca_file = other_file;
        CHECK_EQ(ask(&f), -EPERM);
        CHECK_EQ(server_connections(&f.server), 2); /* neither was repeated */
        forget(other_file);
        drop(&other);
        finish(&f);
}

static void another_hosts_certificate_is_refused(void)
{
        struct fixture f;

        begin(&f, "127.0.0.2", false);
        CHECK_EQ(ask(&f), -EPERM);
        CHECK(!f.reply.was_sent);
        finish(&f);
}

static void we_show_who_we_are(void)
{
        struct fixture f;
        struct identity me;
        char *cert, *key;

        begin(&f, "127.0.0.1", true);
        CHECK(ask(&f) < 0);
        me = make(&f.authority, "client");
        f.config.cert_file = cert = write_pem(&me, false);
        f.config.key_file = key = write_pem(&me, true);
        CHECK_EQ(ask(&f), 0);
        forget(cert);
        forget(key);
        drop(&me);
        finish(&f);
}

/* ---- upgrades ---- */

struct heard {
        struct mutex lock;
        struct cond changed;
        struct buf data;
        bool is_over;
        int error;
};

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct heard *h = ctx;

        (void)is_stderr;
        mutex_lock(&h->lock);
        CHECK_EQ(buf_add(&h->data, data, size), 0);
        mutex_unlock(&h->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct heard *h = ctx;

        mutex_lock(&h->lock);
        h->is_over = true;
        h->error = end->error;
        cond_broadcast(&h->changed);
        mutex_unlock(&h->lock);
}

/* Half is closed that isn't there any more. */
static void a_reset_is_survived(void)
{
        struct http_request q = {.method = "POST", .path = "/reset"};
        struct fixture f;

        begin(&f, "127.0.0.1", false);
        f.http = connect_to(&f.server, &f.config);
        call_init(&f.call, clock_after(100 * NS_PER_S));
        for (unsigned i = 1; i <= 5; i++) {
                struct heard h = {.data = BUF_INIT(1 << 20)};
                struct stream_events events = {.data = on_data, .end = on_end, .ctx = &h};
                struct stream *s = NULL;

                mutex_init(&h.lock);
                cond_init(&h.changed);
                if (http_upgrade(f.http, &f.call, &q, "tcp", &events, &f.reply, &s) == 0) {
                        while (server_counted(&f.server) < i)
                                (void)usleep(1000);
                        (void)stream_send(s, "x", 1);
                        (void)stream_send_eof(s);
                        (void)usleep(2000);
                        stream_close(s);
                }
                buf_done(&h.data);
                cond_done(&h.changed);
                mutex_done(&h.lock);
        }
        finish(&f);
}

static void bytes_go_both_ways(void)
{
        static char data[1 << 20];
        struct heard h = {.data = BUF_INIT(64 << 20)};
        struct stream_events events = {.data = on_data, .end = on_end, .ctx = &h};
        struct http_request q = {.method = "POST", .path = "/exec"};
        uint64_t until = clock_after(100 * NS_PER_S);
        struct stream *s = NULL;
        struct fixture f;

        mutex_init(&h.lock);
        cond_init(&h.changed);
        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (char)(i * 7 + i / 251);
        begin(&f, "127.0.0.1", false);
        CHECK_EQ(ask(&f), 0);
        CHECK_EQ(http_upgrade(f.http, &f.call, &q, "tcp", &events, &f.reply, &s), 0);
        for (int i = 0; i < 4; i++)
                CHECK_EQ(stream_send(s, data, sizeof(data)), 0);
        CHECK_EQ(stream_send_eof(s), 0);
        mutex_lock(&h.lock);
        while (!h.is_over && cond_wait_until(&h.changed, &h.lock, until))
                ;
        mutex_unlock(&h.lock);
        CHECK(h.is_over);
        CHECK_EQ(h.error, 0);
        if (CHECK_EQ(h.data.size, sizeof(data) * 4 + 3)) {
                for (size_t i = 0; i < 4; i++)
                        CHECK(memcmp(h.data.data + i * sizeof(data), data, sizeof(data)) == 0);
                CHECK_STR(h.data.data + sizeof(data) * 4, "bye");
        }
        stream_close(s);
        finish(&f);
        buf_done(&h.data);
        cond_done(&h.changed);
        mutex_done(&h.lock);
}

int main(void)
{
        RUN(a_named_authority_is_trusted);
        RUN(many_ask_at_once);
        RUN(others_are_not);
        RUN(another_hosts_certificate_is_refused);
        RUN(we_show_who_we_are);
        RUN(bytes_go_both_ways);
        RUN(a_reset_is_survived);
        return check_result();
}
