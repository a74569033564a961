/* SPDX-License-Identifier: Apache-2.0 */
/* What the API's answers say of a sandbox: where its daemon is, and which; see box.h. */

#include "providers/e2b/box.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/e2b/envd.h"
#include "providers/e2b/states.h"
#include "transport/base/cleanup.h"
#include "transport/base/json.h"
#include "transport/http/secret.h"

static const char *text_of(const struct json *object, const char *key)
{
        const char *text = json_string(json_get(object, key));

        return text && *text ? text : NULL;
}

/* What leads to its daemon. */
struct way {
        char *url;
        char *token; /* NULL none */
        struct http *envd;
};

static void way_done(struct way *w)
{
        free(w->url);
        wipe_free(w->token);
        http_unref(w->envd);
}

/* Whether `told` leads elsewhere. An answer without a domain or a token says nothing of it. */
static bool is_news_locked(const struct e2b_box *b, const struct way *told, bool has_domain)
        REQUIRES(b->remote.lock)
{
        return !b->envd || (has_domain && strcmp(b->envd_url, told->url) != 0) ||
               (told->token && (!b->envd_token || strcmp(b->envd_token, told->token) != 0));
}

static bool is_news(struct e2b_box *b, const struct way *told, bool has_domain)
{
        bool is;

        mutex_lock(&b->remote.lock);
        is = is_news_locked(b, told, has_domain);
        mutex_unlock(&b->remote.lock);
        return is;
}

/* Calls under way have a reference of the one that they began with. */
static void replace(struct e2b_box *b, struct way *by)
{
        struct way before;

        mutex_lock(&b->remote.lock);
        before = (struct way){b->envd_url, b->envd_token, b->envd};
        b->envd_url = by->url;
        b->envd_token = by->token;
        b->envd = by->envd;
        mutex_unlock(&b->remote.lock);
        *by = before;
}

/* Where its daemon is. A paused one's answer has no domain, whichever it is of. */
static int learn_way(struct e2b_box *b, struct call *c, const struct json *sandbox)
{
        const char *domain = text_of(sandbox, "domain"),
                   *token = text_of(sandbox, "envdAccessToken"), *id = b->remote.base.id;
        _cleanup_(way_done) struct way told = {0};
        int r;

        if (!domain && !b->e2b->config.sandbox_url &&
            e2b_state(text_of(sandbox, "state")) == BOX_PAUSED)
                return 0;
        r = e2b_envd_url(&b->e2b->config, id, domain, &told.url);
        if (r < 0)
                return call_fail_errno(c, r, "the address of the sandbox");
        if (token) {
                told.token = strdup(token);
                if (!told.token)
                        return call_fail(c, -ENOMEM, "out of memory");
        }
        if (!is_news(b, &told, domain != NULL))
                return 0;
        r = e2b_envd_new(b->e2b, id, told.url, token, c, &told.envd);
        if (r == 0)
                replace(b, &told);
        return r;
}

int box_learn(struct e2b_box *b, struct call *c, const struct json *sandbox)
{
        const char *version = text_of(sandbox, "envdVersion");
        int r = learn_way(b, c, sandbox);

        if (r < 0)
                return r;
        if (version) {
                mutex_lock(&b->remote.lock);
                (void)snprintf(b->version, sizeof(b->version), "%.31s", version);
                mutex_unlock(&b->remote.lock);
        }
        remote_asked(&b->remote, e2b_metadata(sandbox, METADATA_USER),
                     e2b_metadata(sandbox, METADATA_WORKDIR));
        return 0;
}

/* A reference; NULL: it isn't known yet. */
static struct http *envd_of(struct e2b_box *b)
{
        struct http *h;

        mutex_lock(&b->remote.lock);
        h = b->envd ? http_ref(b->envd) : NULL;
        mutex_unlock(&b->remote.lock);
        return h;
}

int box_endpoint(struct e2b_box *b, struct call *c, struct http **ret)
{
        struct box_status status;
        struct http *h = envd_of(b);
        int r;

        if (!h) {
                r = remote_look(&b->remote, c, &status);
                if (r < 0)
                        return r;
                h = envd_of(b);
        }
        if (!h)
                return call_fail(c, -EHOSTDOWN, "the sandbox is paused");
        *ret = h;
        return 0;
}

void box_version(struct e2b_box *b, char ret[32])
{
        mutex_lock(&b->remote.lock);
        memcpy(ret, b->version, sizeof(b->version));
        mutex_unlock(&b->remote.lock);
}
