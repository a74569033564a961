/* SPDX-License-Identifier: Apache-2.0 */
/* An endpoint: what every request to it has, checked once. */

#include "transport/http/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/http/loop.h"
#include "transport/http/private.h"

/* ---- libcurl's own start, and what lanes share ---- */

static pthread_once_t global_once = PTHREAD_ONCE_INIT;
static CURLcode global_code;

static void global_init(void)
{
        global_code = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void share_lock(CURL *easy, curl_lock_data data, curl_lock_access access,
                       void *ctx) NO_THREAD_SAFETY_ANALYSIS
{
        struct http *h = ctx;

        (void)easy;
        (void)access;
        mutex_lock(&h->share_locks[data]);
}

static void share_unlock(CURL *easy, curl_lock_data data, void *ctx) NO_THREAD_SAFETY_ANALYSIS
{
        struct http *h = ctx;

        (void)easy;
        mutex_unlock(&h->share_locks[data]);
}

static bool make_share(struct http *h)
{
        h->share = curl_share_init();
        return h->share && curl_share_setopt(h->share, CURLSHOPT_USERDATA, h) == CURLSHE_OK &&
               curl_share_setopt(h->share, CURLSHOPT_LOCKFUNC, share_lock) == CURLSHE_OK &&
               curl_share_setopt(h->share, CURLSHOPT_UNLOCKFUNC, share_unlock) == CURLSHE_OK &&
               curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) == CURLSHE_OK &&
               curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) ==
                       CURLSHE_OK;
}

/* ---- checks ---- */

static bool is_loopback(const char *host)
{
        struct in_addr address;

        if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
                return true;
        return inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

/* A part of the URL, to curl_free; NULL: it has none. */
static char *part(CURLU *u, CURLUPart what)
{
        char *text = NULL;

        return curl_url_get(u, what, &text, 0) == CURLUE_OK ? text : NULL;
}

static int check_parts(struct http *h, const struct http_config *config, CURLU *u, struct call *c)
{
        char *scheme = part(u, CURLUPART_SCHEME), *host = part(u, CURLUPART_HOST);
        char *user = part(u, CURLUPART_USER), *query = part(u, CURLUPART_QUERY);
        char *fragment = part(u, CURLUPART_FRAGMENT);
        bool is_plain = scheme && strcmp(scheme, "http") == 0;
        int r = 0;

        h->is_local = h->socket_path || (host && is_loopback(host));
        if (!scheme || !host || !(is_plain || strcmp(scheme, "https") == 0))
                r = call_fail(c, -EINVAL, "%s: the URL must start with https:// or http://",
                              h->name);
        else if (user || query || fragment)
                r = call_fail(c, -EINVAL, "%s: the URL may have no user, query or fragment",
                              h->name);
        else if (is_plain && !h->is_local &&
                 !(config->plain_host && strcasecmp(config->plain_host, host) == 0))
                r = call_fail(c, -EPERM,
                              "%s: plain http to %s would show the key to everybody on the way: "
                              "use https, or have the operator allow this host",
                              h->name, host);
        curl_free(scheme);
        curl_free(host);
        curl_free(user);
        curl_free(query);
        curl_free(fragment);
        return r;
}

static int take_url(struct http *h, const struct http_config *config, struct call *c)
{
        const char *url = config->url;
        CURLU *u;
        int r;

        if (!url && config->socket_path)
                url = "http://localhost";
        if (!url)
                return call_fail(c, -EINVAL, "%s: no URL", h->name);
        u = curl_url();
        if (!u)
                return call_fail_errno(c, -ENOMEM, "%s", h->name);
        if (curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK)
                r = call_fail(c, -EINVAL, "%s: this is no URL", h->name);
        else
                r = check_parts(h, config, u, c);
        curl_url_cleanup(u);
        if (r < 0)
                return r;
        h->url = strdup(url);
        if (!h->url)
                return call_fail_errno(c, -ENOMEM, "%s", h->name);
        for (size_t size = strlen(h->url); size > 0 && h->url[size - 1] == '/'; size--)
                h->url[size - 1] = '\0';
        return 0;
}

bool header_is_valid(const struct http_header *header)
{
        static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                    "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

        if (!header->name[0] || header->name[strspn(header->name, token)])
                return false;
        for (const char *p = header->value; *p; p++)
                if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f)
                        return false;
        return true;
}

char *header_line(const struct http_header *header)
{
        char *line = NULL;
        int n = header->value[0] ? asprintf(&line, "%s: %s", header->name, header->value)
                                 : asprintf(&line, "%s;", header->name); /* libcurl's "empty" */

        return n < 0 ? NULL : line;
}

static int take_headers(struct http *h, const struct http_config *config, struct call *c)
{
        h->headers = calloc(config->header_count + 1, sizeof(char *));
        if (!h->headers)
                return -ENOMEM;
        for (size_t i = 0; i < config->header_count; i++) {
                if (!header_is_valid(&config->headers[i]))
                        return call_fail(c, -EINVAL, "%s: a header that can't be sent", h->name);
                h->headers[i] = header_line(&config->headers[i]);
                if (!h->headers[i])
                        return -ENOMEM;
                h->header_count++;
        }
        return secrets_add(&h->secrets, config->headers, config->header_count);
}

static bool copy(const char *from, char **to)
{
        *to = from ? strdup(from) : NULL;
        return *to || !from;
}

static int take_texts(struct http *h, const struct http_config *config)
{
        const char *agent = config->user_agent ? config->user_agent : "sbxfs/" SBXFS_VERSION;
        const char *probe = config->probe_path ? config->probe_path : "/";

        return copy(config->name, &h->name) && copy(config->socket_path, &h->socket_path) &&
                               copy(agent, &h->user_agent) && copy(probe, &h->probe_path) &&
                               copy(config->ca_file, &h->ca_file) &&
                               copy(config->ca_dir, &h->ca_dir) &&
                               copy(config->cert_file, &h->cert_file) &&
                               copy(config->key_file, &h->key_file)
                       ? 0
                       : -ENOMEM;
}

static int check_files(const struct http *h, struct call *c)
{
        const char *files[] = {h->ca_file, h->ca_dir, h->cert_file, h->key_file};

        for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
                if (files[i] && access(files[i], R_OK) < 0)
                        return call_fail(c, -EINVAL, "%s: can't read %s: %s", h->name, files[i],
                                         strerrordesc_np(errno));
        if (!h->cert_file != !h->key_file)
                return call_fail(c, -EINVAL, "%s: a certificate and its key come together",
                                 h->name);
        if (h->socket_path && strlen(h->socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
                return call_fail(c, -EINVAL, "%s: the socket's path is too long", h->name);
        return 0;
}

/* ---- birth and end ---- */

/* Any answer shows that somebody is there. */
static int probe(void *ctx, struct call *c)
{
        struct http *h = ctx;
        struct http_request q = {.path = h->probe_path};

        return http_probe(h, c, &q);
}

static void http_free(struct http *h)
{
        loop_stop(h->loop);
        breaker_stop(&h->breaker);
        lanes_drop(h);
        if (h->share)
                (void)curl_share_cleanup(h->share); /* nobody uses it any more */
        for (size_t i = 0; i < CURL_LOCK_DATA_LAST; i++)
                mutex_done(&h->share_locks[i]);
        for (size_t i = 0; i < h->header_count; i++)
                wipe_free(h->headers[i]);
        free(h->headers);
        secrets_done(&h->secrets);
        breaker_done(&h->breaker);
        mutex_done(&h->lock);
        free(h->name);
        free(h->url);
        free(h->socket_path);
        free(h->user_agent);
        free(h->probe_path);
        free(h->ca_file);
        free(h->ca_dir);
        free(h->cert_file);
        free(h->key_file);
        free(h);
}

int http_new(const struct http_config *config, struct call *c, struct http **ret)
{
        struct http *h;
        int r;

        (void)pthread_once(&global_once, global_init);
        h = global_code == CURLE_OK ? calloc(1, sizeof(*h)) : NULL;
        if (!h)
                return call_fail_errno(c, -ENOMEM, "%s", config->name);
        atomic_init(&h->refs, 1);
        h->explain = config->explain;
        list_init(&h->lanes);
        mutex_init(&h->lock);
        for (size_t i = 0; i < CURL_LOCK_DATA_LAST; i++)
                mutex_init(&h->share_locks[i]);
        breaker_init(&h->breaker, probe, h);
        r = take_texts(h, config);
        r = r < 0 ? r : take_headers(h, config, c);
        if (r == 0 && !make_share(h))
                r = -ENOMEM;
        if (r == -ENOMEM)
                (void)call_fail_errno(c, r, "%s", config->name);
        r = r < 0 ? r : check_files(h, c);
        r = r < 0 ? r : take_url(h, config, c);
        if (r < 0) {
                http_free(h);
                return r;
        }
        *ret = h;
        return 0;
}

struct http *http_ref(struct http *h)
{
        (void)atomic_fetch_add(&h->refs, 1);
        return h;
}

void http_unref(struct http *h)
{
        if (h && atomic_fetch_sub(&h->refs, 1) == 1)
                http_free(h);
}

bool http_is_up(struct http *h, char *sentence, size_t size)
{
        return breaker_check(&h->breaker, sentence, size) == 0;
}

void http_renew(struct http *h)
{
        lanes_drop(h);
        breaker_answered(&h->breaker);
}

/* ---- what every handle has, whoever asks with it ---- */

int url_of(const struct http *h, const char *path, char **ret)
{
        for (const char *p = path; *p; p++)
                if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || *p == '#')
                        return -EINVAL;
        if (path[0] != '/')
                return -EINVAL;
        return asprintf(ret, "%s%s", h->url, path) < 0 ? -ENOMEM : 0;
}

#define SET(option, value)                                                                         \
        do {                                                                                       \
                CURLcode code_ = curl_easy_setopt(easy, option, value);                            \
                                                                                                   \
                if (code_ != CURLE_OK)                                                             \
                        return http_curl_error(code_);                                             \
        } while (0)

static int setup_tls(const struct http *h, CURL *easy)
{
        SET(CURLOPT_SSL_VERIFYPEER, 1L);
        SET(CURLOPT_SSL_VERIFYHOST, 2L);
        SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
        if (h->ca_file || h->ca_dir) {
                SET(CURLOPT_CAINFO, h->ca_file);
                SET(CURLOPT_CAPATH, h->ca_dir);
        }
        if (h->cert_file) {
                SET(CURLOPT_SSLCERT, h->cert_file);
                SET(CURLOPT_SSLKEY, h->key_file);
        }
        return 0;
}

int easy_setup(const struct http *h, CURL *easy)
{
        SET(CURLOPT_NOSIGNAL, 1L);
        SET(CURLOPT_QUICK_EXIT, 1L); /* never wait for a name that is still being resolved */
        SET(CURLOPT_PROTOCOLS_STR, "http,https");
        SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
        SET(CURLOPT_FOLLOWLOCATION, 0L);
        SET(CURLOPT_PATH_AS_IS, 1L);
        SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
        SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* keys are not for proxies */
        SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        SET(CURLOPT_USERAGENT, h->user_agent);
        SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(HTTP_CONNECT_NS / NS_PER_MS));
        SET(CURLOPT_TCP_KEEPALIVE, 1L);
        SET(CURLOPT_TCP_KEEPIDLE, 15L);
        SET(CURLOPT_TCP_KEEPINTVL, 5L);
        SET(CURLOPT_SHARE, h->share);
        if (h->is_local)
                SET(CURLOPT_NOPROXY, "*");
        if (h->socket_path)
                SET(CURLOPT_UNIX_SOCKET_PATH, h->socket_path);
        return setup_tls(h, easy);
}
