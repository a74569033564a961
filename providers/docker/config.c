/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator said of the engine; see config.h. */

#include "providers/docker/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "transport/base/cleanup.h"

#define PATH_SIZE 4096
#define SOCKET_DEFAULT "/var/run/docker.sock"

const char *const docker_config_keys[] = {"host", "tls", "cert_path", "plain", "files", NULL};

void docker_config_done(struct docker_config *d)
{
        free(d->socket_path);
        free(d->url);
        free(d->plain_host);
        free(d->ca_file);
        free(d->cert_file);
        free(d->key_file);
        *d = (struct docker_config){0};
}

/* NULL where it is unset or empty. */
static const char *variable(const char *name)
{
        const char *value = getenv(name); /* NOLINT(concurrency-mt-unsafe): nothing sets any */

        return value && *value ? value : NULL;
}

static const char *key(const struct pair *pairs, size_t count, const char *name)
{
        for (size_t i = 0; i < count; i++)
                if (strcmp(pairs[i].key, name) == 0)
                        return pairs[i].value;
        return NULL;
}

static bool is_socket(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* The usual places, the system's engine first. False: there is none. */
static bool find_socket(char ret[PATH_SIZE])
{
        static const char *const own[] = {"docker.sock", "podman/podman.sock"};
        const char *dir = variable("XDG_RUNTIME_DIR");

        (void)snprintf(ret, PATH_SIZE, SOCKET_DEFAULT);
        if (is_socket(ret) && access(ret, R_OK | W_OK) == 0)
                return true;
        for (size_t i = 0; dir && i < sizeof(own) / sizeof(own[0]); i++) {
                (void)snprintf(ret, PATH_SIZE, "%s/%s", dir, own[i]);
                if (is_socket(ret))
                        return true;
        }
        (void)snprintf(ret, PATH_SIZE, SOCKET_DEFAULT);
        return is_socket(ret);
}

bool docker_is_there(void)
{
        char path[PATH_SIZE];

        return variable("DOCKER_HOST") || find_socket(path);
}

/* ---- TLS ---- */

static int cert_file(const char *dir, const char *name, struct call *c, char **ret)
{
        if (asprintf(ret, "%s/%s", dir, name) < 0) {
                *ret = NULL;
                return call_fail(c, -ENOMEM, "out of memory");
        }
        return access(*ret, R_OK) < 0 ? call_fail_errno(c, -errno, "%s", *ret) : 0;
}

/* Without a directory of certificates: the system's authorities, and nobody in particular. */
static int read_certs(const char *dir, struct call *c, struct docker_config *d)
{
        const char *home = variable("HOME");
        char usual[PATH_SIZE];
        int r;

        if (!dir) {
                (void)snprintf(usual, sizeof(usual), "%s/.docker", home ? home : "");
                (void)snprintf(usual + strlen(usual), sizeof(usual) - strlen(usual), "/cert.pem");
                if (!home || access(usual, R_OK) < 0)
                        return 0;
                *strrchr(usual, '/') = '\0';
                dir = usual;
        }
        r = cert_file(dir, "ca.pem", c, &d->ca_file);
        if (r == 0)
                r = cert_file(dir, "cert.pem", c, &d->cert_file);
        if (r == 0)
                r = cert_file(dir, "key.pem", c, &d->key_file);
        return r;
}

static int parse_tls(const char *value, struct call *c, bool *ret)
{
        if (!value) {
                *ret = variable("DOCKER_TLS_VERIFY") != NULL;
                return 0;
        }
        *ret = strcmp(value, "on") == 0;
        return *ret || strcmp(value, "off") == 0
                       ? 0
                       : call_fail(c, -EINVAL, "tls = %.80s: on or off", value);
}

/* ---- the address ---- */

static bool starts(const char *text, const char *with, const char **rest)
{
        if (strncmp(text, with, strlen(with)) != 0)
                return false;
        *rest = text + strlen(with);
        return true;
}

static int set_socket(const char *path, struct call *c, struct docker_config *d)
{
        if (path[0] != '/' || strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
                return call_fail(c, -EINVAL, "unix://%.120s: no path of a socket", path);
        d->socket_path = strdup(path);
        return d->socket_path ? 0 : call_fail(c, -ENOMEM, "out of memory");
}

static int set_url(const char *scheme, const char *rest, struct call *c, struct docker_config *d)
{
        const char *colon = strrchr(rest, ':');
        bool has_port = colon && !strchr(colon, ']');

        if (!*rest || strpbrk(rest, "@?# \t"))
                return call_fail(c, -EINVAL, "%.120s: no address of an engine", rest);
        if (asprintf(&d->url, "%s://%s%s", scheme, rest,
                     has_port                       ? ""
                     : strcmp(scheme, "https") == 0 ? ":2376"
                                                    : ":2375") < 0) {
                d->url = NULL;
                return call_fail(c, -ENOMEM, "out of memory");
        }
        return 0;
}

static int parse_host(const char *host, bool *tls, struct call *c, struct docker_config *d)
{
        const char *rest;

        if (starts(host, "unix://", &rest))
                return set_socket(rest, c, d);
        if (starts(host, "https://", &rest))
                *tls = true;
        else if (!starts(host, "tcp://", &rest) && !starts(host, "http://", &rest))
                return call_fail(c, -EINVAL,
                                 "%.120s: unix://PATH, tcp://HOST:PORT or https://HOST:PORT", host);
        return set_url(*tls ? "https" : "http", rest, c, d);
}

/* `name`: of the key or variable. */
static int set_host(const char *name, const char *host, bool tls, const char *certs, struct call *c,
                    struct docker_config *d)
{
        int r = parse_host(host, &tls, c, d);

        if (r < 0)
                return call_wrap(c, r, "%s = ", name);
        return tls && d->url ? read_certs(certs, c, d) : 0;
}

static int parse_files(const char *value, struct call *c, struct docker_config *d)
{
        d->has_no_agent = value && strcmp(value, "shell") == 0;
        d->has_no_direct = value && strcmp(value, "stream") == 0;
        return d->has_no_agent || d->has_no_direct || !value || strcmp(value, "agent") == 0
                       ? 0
                       : call_fail(c, -EINVAL, "files = %.80s: agent, stream or shell", value);
}

int docker_config_read(const struct pair *pairs, size_t count, struct call *c,
                       struct docker_config *ret)
{
        const char *host = key(pairs, count, "host"), *certs = key(pairs, count, "cert_path"),
                   *plain = key(pairs, count, "plain");
        struct docker_config d = {0};
        char path[PATH_SIZE];
        bool tls = false;
        int r = parse_tls(key(pairs, count, "tls"), c, &tls);

        if (r == 0)
                r = parse_files(key(pairs, count, "files"), c, &d);

        if (!certs)
                certs = variable("DOCKER_CERT_PATH");
        if (r == 0 && host) {
                r = set_host("host", host, tls, certs, c, &d);
        } else if (r == 0 && variable("DOCKER_HOST")) {
                d.is_from_env = true;
                r = set_host("DOCKER_HOST", variable("DOCKER_HOST"), tls, certs, c, &d);
                if (r < 0 && r != -ENOMEM)
                        r = -EHOSTUNREACH;
        } else if (r == 0) {
                (void)find_socket(path); /* the system's, when there is none */
                r = set_socket(path, c, &d);
        }
        if (r == 0 && plain) {
                d.plain_host = strdup(plain);
                r = d.plain_host ? 0 : call_fail(c, -ENOMEM, "out of memory");
        }
        if (r == 0)
                *ret = d;
        else
                docker_config_done(&d);
        return r;
}
