/* SPDX-License-Identifier: Apache-2.0 */

#include "transport/ssh/hostkey.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/ssh/base64.h"
#include "transport/ssh/ssh.h"

#define FILE_MAX ((size_t)16 << 20)
#define KNOWN_MAX 1024 /* keys of one host */
#define BLANKS " \t\r"
#define PIN_PREFIX "SHA256:"
#define PIN_SIZE 43 /* base64 of 32 bytes without padding */
#define NAME_MAX_SIZE 512

/* The names under which known_hosts may have the host; the second one, NULL or without port. */
struct names {
        char exact[NAME_MAX_SIZE];
        char bare[NAME_MAX_SIZE];
};

static void lower(char *text)
{
        for (; *text; text++)
                *text = (char)tolower((unsigned char)*text);
}

static void names_init(struct names *n, const struct ssh_target *t)
{
        const char *name = t->host_key_alias ? t->host_key_alias : t->host;

        n->bare[0] = '\0';
        if (t->host_key_alias || t->port == 0 || t->port == 22) {
                (void)snprintf(n->exact, sizeof(n->exact), "%s", name);
        } else {
                (void)snprintf(n->exact, sizeof(n->exact), "[%s]:%u", name, t->port);
                (void)snprintf(n->bare, sizeof(n->bare), "%s", name);
        }
        lower(n->exact);
        lower(n->bare);
}

/* One pattern with * and ?; the name is in lower case. */
static bool pattern_matches(const char *p, size_t size, const char *name)
{
        const char *end = p + size, *star = NULL, *from = NULL;

        while (*name) {
                if (p < end && *p == '*') {
                        star = ++p;
                        from = name;
                } else if (p < end && (*p == '?' || tolower((unsigned char)*p) == *name)) {
                        p++;
                        name++;
                } else if (star) {
                        p = star;
                        name = ++from;
                } else {
                        return false;
                }
        }
        while (p < end && *p == '*')
                p++;
        return p == end;
}

/* "a,*.b,!c.b" */
static bool list_matches(const char *list, const char *name)
{
        bool is_found = false;

        while (*list) {
                size_t size = strcspn(list, ",");
                bool is_negated = *list == '!';

                if (pattern_matches(list + is_negated, size - is_negated, name)) {
                        if (is_negated)
                                return false;
                        is_found = true;
                }
                list += size;
                if (*list == ',')
                        list++;
        }
        return is_found;
}

/* "|1|salt|hash": the hash is libssh2's business. */
static bool hash_matches(LIBSSH2_SESSION *session, const char *hosts, const char *type,
                         const char *key, const char *name)
{
        LIBSSH2_KNOWNHOSTS *one = libssh2_knownhost_init(session);
        struct buf line = BUF_INIT(FILE_MAX);
        bool is_match = false;

        if (one && buf_addf(&line, "%s %s %s\n", hosts, type, key) == 0 &&
            libssh2_knownhost_readline(one, line.data, line.size, LIBSSH2_KNOWNHOST_FILE_OPENSSH) ==
                    0)
                is_match = libssh2_knownhost_check(one, name, key, strlen(key),
                                                   LIBSSH2_KNOWNHOST_TYPE_PLAIN |
                                                           LIBSSH2_KNOWNHOST_KEYENC_BASE64,
                                                   NULL) == LIBSSH2_KNOWNHOST_CHECK_MATCH;
        if (one)
                libssh2_knownhost_free(one);
        buf_done(&line);
        return is_match;
}

/* What reading the files needs. */
struct reader {
        struct hostkey *h;
        struct names names;
        LIBSSH2_SESSION *session; /* for its hashes */
};

static bool name_matches(const struct reader *r, const char *hosts, const char *type,
                         const char *key, const char *name)
{
        if (!*name)
                return false;
        if (strncmp(hosts, "|1|", 3) == 0)
                return hash_matches(r->session, hosts, type, key, name);
        return list_matches(hosts, name);
}

static int add_known(struct hostkey *h, const char *type, const char *key, bool is_exact,
                     bool is_revoked)
{
        struct hostkey_known *more, *k;

        if (strlen(type) >= HOSTKEY_TYPE_SIZE || (h->count >= KNOWN_MAX && !is_revoked))
                return 0; /* no type that we would ever be shown */
        more = reallocarray(h->known, h->count + 1, sizeof(*more));
        if (!more)
                return -ENOMEM;
        h->known = more;
        k = &more[h->count];
        *k = (struct hostkey_known){.is_exact = is_exact, .is_revoked = is_revoked};
        (void)snprintf(k->type, sizeof(k->type), "%s", type);
        k->key = strdup(key);
        if (!k->key)
                return -ENOMEM;
        h->count++;
        return 0;
}

/* The next word of a line, ended by NUL; NULL when there is none. */
static char *word(char **at)
{
        char *start = *at + strspn(*at, BLANKS), *end = start + strcspn(start, BLANKS);

        *at = *end ? end + 1 : end;
        *end = '\0';
        return *start ? start : NULL;
}

static int read_line(struct reader *r, char *line)
{
        char *hosts = word(&line), *type, *key;
        bool is_revoked = false, is_exact;

        if (!hosts || *hosts == '#')
                return 0;
        if (*hosts == '@') {
                is_revoked = strcmp(hosts, "@revoked") == 0;
                if (!is_revoked)
                        return 0; /* @cert-authority */
                hosts = word(&line);
        }
        type = word(&line);
        key = word(&line);
        if (!hosts || !type || !key)
                return 0; /* as ssh: what isn't a line is passed over */
        if (is_revoked)
                return add_known(r->h, type, key, false, true);
        is_exact = name_matches(r, hosts, type, key, r->names.exact);
        if (!is_exact && !name_matches(r, hosts, type, key, r->names.bare))
                return 0;
        return add_known(r->h, type, key, is_exact, false);
}

static int read_known_hosts(struct reader *r, const char *path)
{
        struct buf text = BUF_INIT(FILE_MAX);
        int result = file_read(AT_FDCWD, path, &text);
        char *line = text.data;

        while (result == 0 && line && *line) {
                char *end = line + strcspn(line, "\n"), *next = *end ? end + 1 : end;

                *end = '\0';
                result = read_line(r, line);
                line = next;
        }
        buf_done(&text);
        return result == -ENOENT || result == -ENOTDIR ? 0 : result;
}

static int read_home_file(struct reader *r, const char *name)
{
        const char *home = getenv("HOME"); /* NOLINT(concurrency-mt-unsafe): nothing sets any */
        char path[4096];

        if (!home || (size_t)snprintf(path, sizeof(path), "%s/%s", home, name) >= sizeof(path))
                return 0;
        return read_known_hosts(r, path);
}

static int read_usual_files(struct reader *r)
{
        int result = read_home_file(r, ".ssh/known_hosts");

        if (result == 0)
                result = read_home_file(r, ".ssh/known_hosts2");
        if (result == 0)
                result = read_known_hosts(r, "/etc/ssh/ssh_known_hosts");
        return result;
}

static bool is_pin(const char *text)
{
        size_t size;

        if (strncmp(text, PIN_PREFIX, strlen(PIN_PREFIX)) != 0)
                return false;
        text += strlen(PIN_PREFIX);
        size = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
        return size == PIN_SIZE && (!text[size] || strcmp(text + size, "=") == 0);
}

int hostkey_init(struct hostkey *h, const struct ssh_target *target, struct call *c)
{
        struct reader r = {.h = h};
        const char *file = NULL;
        int result = 0;

        *h = (struct hostkey){.target = target};
        if (target->hostkey && is_pin(target->hostkey))
                return 0;
        if (target->hostkey)
                return call_fail(
                        c, -EINVAL,
                        "hostkey '%s' is not SHA256: and the 43 characters that ssh-keygen "
                        "-l prints",
                        target->hostkey);
        names_init(&r.names, target);
        r.session = libssh2_session_init_ex(NULL, NULL, NULL, NULL);
        if (!r.session)
                return call_fail_errno(c, -ENOMEM, "known hosts");
        if (!target->known_hosts)
                result = read_usual_files(&r);
        for (size_t i = 0; result == 0 && target->known_hosts && target->known_hosts[i]; i++) {
                file = target->known_hosts[i];
                result = read_known_hosts(&r, file);
        }
        (void)libssh2_session_free(r.session); /* was never connected: it can't wait */
        if (result < 0) {
                hostkey_done(h);
                return call_fail_errno(c, result, "%s", file ? file : "known_hosts");
        }
        return 0;
}

void hostkey_done(struct hostkey *h)
{
        for (size_t i = 0; i < h->count; i++)
                free(h->known[i].key);
        free(h->known);
        h->known = NULL;
        h->count = 0;
}

/* -- which type the server is asked for */

/* The type of key that a signature algorithm is made with. */
static const char *key_type(const char *algorithm)
{
        return strncmp(algorithm, "rsa-sha2-", 9) == 0 ? "ssh-rsa" : algorithm;
}

/* 0 known, 1 and 2 not known but fine, 3 of another time, -1 never. */
static int rank(const struct hostkey *h, const char *algorithm)
{
        const char *type = key_type(algorithm);

        if (strstr(algorithm, "-cert-") || strcmp(type, "ssh-dss") == 0)
                return -1;
        for (size_t i = 0; i < h->excluded_count; i++)
                if (strcmp(h->excluded[i], type) == 0)
                        return -1;
        for (size_t i = 0; i < h->count; i++)
                if (!h->known[i].is_revoked && strcmp(h->known[i].type, type) == 0)
                        return 0;
        if (strcmp(type, "ssh-rsa") == 0)
                return 3;
        return strcmp(type, "ssh-ed25519") == 0 ? 1 : 2;
}

int hostkey_prefer(const struct hostkey *h, LIBSSH2_SESSION *session, struct call *c)
{
        struct buf list = BUF_INIT(4096);
        const char **algorithms = NULL;
        int r = 0,
            count = libssh2_session_supported_algs(session, LIBSSH2_METHOD_HOSTKEY, &algorithms);

        for (int want = 0; want <= 3; want++)
                for (int i = 0; r == 0 && i < count; i++)
                        if (rank(h, algorithms[i]) == want)
                                r = buf_addf(&list, "%s%s", list.size ? "," : "", algorithms[i]);
        if (count > 0)
                libssh2_free(session, (void *)algorithms);
        if (r == 0 && list.size == 0)
                r = call_fail(c, -EPERM, "no type of host key is left");
        else if (r == 0 &&
                 libssh2_session_method_pref(session, LIBSSH2_METHOD_HOSTKEY, buf_str(&list)) < 0)
                r = call_fail(c, -EPROTO, "libssh2 takes no list of host keys");
        buf_done(&list);
        return r;
}

/* -- the key that it presented */

static int copy_type(char to[HOSTKEY_TYPE_SIZE], const char *blob, size_t size)
{
        const unsigned char *b = (const unsigned char *)blob;
        size_t length = size < 4 ? 0 : (size_t)b[0] << 24 | (size_t)b[1] << 16 | b[2] << 8 | b[3];

        if (length == 0 || length >= HOSTKEY_TYPE_SIZE || length > size - 4)
                return -EPROTO;
        for (size_t i = 0; i < length; i++)
                if (!isgraph(b[4 + i]) || b[4 + i] == ',')
                        return -EPROTO;
        memcpy(to, blob + 4, length);
        to[length] = '\0';
        return 0;
}

static int get_fingerprint(LIBSSH2_SESSION *session, char *to, size_t size)
{
        const char *hash = libssh2_hostkey_hash(session, LIBSSH2_HOSTKEY_HASH_SHA256);
        struct buf text = BUF_INIT(64);
        int r = hash ? base64_encode(&text, hash, 32) : -EPROTO;

        if (r == 0)
                (void)snprintf(to, size, PIN_PREFIX "%.*s", PIN_SIZE, buf_str(&text));
        buf_done(&text);
        return r;
}

static int check_pin(struct hostkey *h, const char *fingerprint, struct call *c)
{
        if (strncmp(h->target->hostkey, fingerprint, strlen(PIN_PREFIX) + PIN_SIZE) == 0)
                return 0;
        h->is_other = h->excluded_count < HOSTKEY_TRIES;
        return call_fail(c, -EPERM, "the host key is %s %s, not the pinned %s", h->seen,
                         fingerprint, h->target->hostkey);
}

static int refuse(const struct hostkey *h, const char *fingerprint, struct call *c)
{
        const struct ssh_target *t = h->target;
        const char *other = NULL;
        struct names n;

        names_init(&n, t);
        for (size_t i = 0; i < h->count; i++) {
                if (h->known[i].is_revoked || !h->known[i].is_exact)
                        continue;
                if (strcmp(h->known[i].type, h->seen) == 0)
                        return call_fail(
                                c, -EPERM,
                                "the host key of %s has changed: it is %s %s now. Somebody may be "
                                "in between; if the change is known to be right, remove the old one "
                                "with `ssh-keygen -R '%s'` and add the new one",
                                n.exact, h->seen, fingerprint, n.exact);
                other = h->known[i].type;
        }
        if (other)
                return call_fail(c, -EPERM,
                                 "the host key of %s is %s %s, but known_hosts has only a key of "
                                 "type %s, which %s: check it, then add it to known_hosts or set "
                                 "hostkey=%s",
                                 n.exact, h->seen, fingerprint, other,
                                 strcmp(other, "ssh-rsa") == 0 && !libssh2_version(0x010b00)
                                         ? "needs libssh2 1.11 here"
                                         : "the server does not have",
                                 fingerprint);
        return call_fail(c, -EPERM,
                         "the host key of %s is not known: %s %s. Compare it with the host's own "
                         "(ssh-keygen -l), then add it to known_hosts, or set hostkey=%s",
                         n.exact, h->seen, fingerprint, fingerprint);
}

int hostkey_check(struct hostkey *h, LIBSSH2_SESSION *session, struct call *c)
{
        struct buf key = BUF_INIT(65536);
        char fingerprint[80];
        bool is_known = false;
        size_t size = 0;
        int type, r;
        const char *blob = libssh2_session_hostkey(session, &size, &type);

        h->is_other = false;
        if (!blob || copy_type(h->seen, blob, size) < 0 ||
            get_fingerprint(session, fingerprint, sizeof(fingerprint)) < 0)
                return call_fail(c, -EPROTO, "the server's host key is damaged");
        if (h->target->hostkey)
                return check_pin(h, fingerprint, c);
        r = base64_encode(&key, blob, size);
        if (r < 0)
                return call_fail_errno(c, r, "host key");
        for (size_t i = 0; i < h->count && r == 0; i++) {
                if (strcmp(h->known[i].key, buf_str(&key)) != 0)
                        continue;
                if (h->known[i].is_revoked)
                        r = call_fail(c, -EPERM, "the host key %s %s is marked @revoked", h->seen,
                                      fingerprint);
                is_known = true;
        }
        buf_done(&key);
        if (r < 0 || is_known)
                return r;
        return refuse(h, fingerprint, c);
}
