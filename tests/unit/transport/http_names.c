/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts whose names are known at times only: libcurl asks the getaddrinfo that is here. */

#include <dlfcn.h>
#include <netdb.h>

#include "tests/unit/transport/http_fixture.h"

#define NAME "sandboxes.test"

static atomic_bool is_known;

static int resolve(const char *name, const char *service, const struct addrinfo *hints,
                   struct addrinfo **ret)
{
        int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

        *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
        if (!name || strcmp(name, NAME) != 0)
                return real(name, service, hints, ret);
        return atomic_load(&is_known) ? real("127.0.0.1", service, hints, ret) : EAI_NONAME;
}

int getaddrinfo(const char *, const char *, const struct addrinfo *, struct addrinfo **)
        __attribute__((visibility("default"), alias("resolve")));

/* An endpoint by its name. */
static void begin_named(struct fixture *f)
{
        char url[64];
        struct http_config config = {.url = url, .plain_host = NAME};

        atomic_store(&is_known, false);
        begin(f, serve_echo);
        http_unref(f->http);
        (void)snprintf(url, sizeof(url), "http://" NAME "%s", strrchr(f->server.url, ':'));
        f->http = connect_to(&f->server, &config);
}

static void a_name_that_is_unknown_is_asked_for_again(void)
{
        struct http_request q = {.method = "POST", .path = "/x", .data = "{}", .size = 2};
        struct fixture f;

        begin_named(&f);
        for (int i = 0; i < 2; i++) {
                CHECK_EQ(ask(&f, &q), -EHOSTUNREACH);
                CHECK(!f.reply.was_sent);
                CHECK_STR(f.call.sentence, "test: POST /x: Could not resolve host: " NAME);
        }
        atomic_store(&is_known, true);
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_EQ(server_connections(&f.server), 1);
        finish(&f);
}

/* What is big has buffers of other sizes. */
static void sizes_do_not_matter_to_what_failed(void)
{
        struct http_request q = {.path = "/x"};
        struct letters l = {.source = {.read = read_letters, .size = 100000}, .have = 100000};
        struct fixture f;

        begin_named(&f);
        CHECK_EQ(ask(&f, &q), -EHOSTUNREACH);
        q = (struct http_request){.method = "PUT", .path = "/y", .source = &l.source};
        CHECK_EQ(ask(&f, &q), -EHOSTUNREACH);
        atomic_store(&is_known, true);
        CHECK_EQ(ask(&f, &q), 0);
        finish(&f);
}

int main(void)
{
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread so far */
        CHECK_EQ(setenv("no_proxy", NAME, 1), 0);
        RUN(a_name_that_is_unknown_is_asked_for_again);
        RUN(sizes_do_not_matter_to_what_failed);
        return check_result();
}
