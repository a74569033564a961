/* SPDX-License-Identifier: Apache-2.0 */

#include "transport/ssh/auth.h"

#include <errno.h>
#include <libssh2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/escape.h"
#include "transport/ssh/errors.h"
#include "transport/ssh/keyfile.h"
#include "transport/ssh/sock.h"
#include "transport/ssh/ssh.h"

#define TRIED_MAX 512 /* of the sentence */
#define METHODS_MAX 256
#define USUAL_COUNT 3

struct auth {
        struct sock *k;
        LIBSSH2_SESSION *session;
        const struct ssh_target *target;
        struct call *call;
        unsigned user_size;
        char methods[METHODS_MAX]; /* what the server takes: "publickey,password" */
        struct buf tried;
        bool has_rsa; /* an RSA key was among what was refused */
        const char *usual[USUAL_COUNT + 1];
        char paths[USUAL_COUNT][4096];
};

/* Positive: logged in; 0: go on with the next; negative: over. */
enum { LOGGED_IN = 1 };

static void tried(struct auth *a, const char *what, const char *how)
{
        char text[256];

        escape_text(what, strlen(what), text, sizeof(text));
        /* a long list is cut */
        (void)buf_addf(&a->tried, "%s%s (%s)", a->tried.size ? ", " : "", text, how);
}

static bool takes(const struct auth *a, const char *method)
{
        size_t size = strlen(method);

        for (const char *at = a->methods; *at; at += strcspn(at, ","), at += *at == ',')
                if (strncmp(at, method, size) == 0 && (at[size] == ',' || !at[size]))
                        return true;
        return false;
}

/* Whether the server hung up; libssh2 then calls it a refusal at times. */
static bool was_cut_short(const struct auth *a, int rc)
{
        return ssh_errno(rc) == -EHOSTUNREACH || a->k->parting[0] ||
               (a->k->is_ended && a->k->in_at == a->k->in_size);
}

/* The result of a try: a refusal is no error. */
static int judge(struct auth *a, int rc, const char *what)
{
        char reason[256], *text = NULL;

        if (rc == 0)
                return LOGGED_IN;
        if (was_cut_short(a, rc)) { /* after too many tries, for instance */
                sock_reason(a->k, reason, sizeof(reason));
                return call_fail(a->call, a->k->parting[0] ? -EACCES : -EHOSTUNREACH,
                                 "logging in as '%s' was cut short: %s; tried %s%s%s",
                                 a->target->user, reason, buf_str(&a->tried),
                                 a->tried.size ? ", " : "", what);
        }
        if (!ssh_is_fatal(rc)) {
                tried(a, what, "refused");
                return 0;
        }
        (void)libssh2_session_last_error(a->session, &text, NULL, 0);
        return call_fail(a->call, ssh_errno(rc), "%s: %s", what, text ? text : "");
}

static int get_methods(struct auth *a)
{
        char *list = NULL;
        int r, rc;

        SOCK_AWAIT(a->k, a->call, r, rc,
                   (list = libssh2_userauth_list(a->session, a->target->user, a->user_size))
                           ? 0
                           : libssh2_session_last_errno(a->session));
        if (r < 0)
                return r;
        if (list) {
                escape_text(list, strlen(list), a->methods, sizeof(a->methods));
                return 0;
        }
        if (libssh2_userauth_authenticated(a->session))
                return LOGGED_IN;
        return judge(a, rc ? rc : LIBSSH2_ERROR_PROTO, "asking what it takes");
}

/* -- keys */

static bool has_rsa_sha2(void)
{
        return libssh2_version(0x010b00) != NULL;
}

/* `is_rsa`: only keys of that kind, or only others; so that those come last which can't work. */
static int try_file(struct auth *a, const char *path, bool is_usual, bool is_rsa)
{
        struct keyfile key;
        int rc = 0, r = keyfile_read(path, &key);

        if (r == -ENOENT && is_usual) {
                r = 0;
        } else if (r < 0) {
                if (!is_rsa)
                        tried(a, path, r == -EINVAL ? "no private key" : strerrordesc_np(-r));
                r = 0;
        } else if (key.is_encrypted) {
                if (!is_rsa)
                        tried(a, path, "encrypted: add it to an agent");
        } else if (key.is_rsa == is_rsa) {
                SOCK_AWAIT(a->k, a->call, r, rc,
                           libssh2_userauth_publickey_frommemory(a->session, a->target->user,
                                                                 a->user_size, NULL, 0,
                                                                 key.text.data, key.text.size, ""));
                if (r == 0)
                        r = judge(a, rc, path);
                a->has_rsa |= is_rsa;
        }
        keyfile_done(&key);
        return r;
}

static int try_files(struct auth *a, bool is_rsa)
{
        bool is_usual = !a->target->identities;
        const char *const *paths = is_usual ? a->usual : a->target->identities;
        int r = 0;

        for (size_t i = 0; r == 0 && paths[i]; i++)
                r = try_file(a, paths[i], is_usual, is_rsa);
        return r;
}

static int try_agent_key(struct auth *a, LIBSSH2_AGENT *agent,
                         struct libssh2_agent_publickey *identity)
{
        char what[256];
        int r, rc;

        (void)snprintf(what, sizeof(what), "the agent's '%s'",
                       identity->comment ? identity->comment : "");
        SOCK_AWAIT(a->k, a->call, r, rc, libssh2_agent_userauth(agent, a->target->user, identity));
        return r < 0 ? r : judge(a, rc, what);
}

static int try_agent_keys(struct auth *a, LIBSSH2_AGENT *agent, bool is_rsa)
{
        struct libssh2_agent_publickey *identity, *before = NULL;
        unsigned count = 0;
        int r = 0;

        while (r == 0 && libssh2_agent_get_identity(agent, &identity, before) == 0) {
                before = identity;
                count++;
                if (keyfile_is_rsa_blob(identity->blob, identity->blob_len) != is_rsa)
                        continue;
                r = try_agent_key(a, agent, identity);
                a->has_rsa |= is_rsa;
        }
        if (count == 0 && !is_rsa)
                tried(a, "the agent", "has no keys");
        return r;
}

static int try_agent(struct auth *a, bool is_rsa)
{
        LIBSSH2_AGENT *agent;
        int r = 0;

        if (!a->target->uses_agent)
                return 0;
        agent = libssh2_agent_init(a->session);
        if (!agent)
                return call_fail_errno(a->call, -ENOMEM, "agent");
        if (a->target->agent_socket)
                libssh2_agent_set_identity_path(agent, a->target->agent_socket);
        if (libssh2_agent_connect(agent) < 0) {
                if (!is_rsa)
                        tried(a, "the agent", "cannot be reached");
        } else if (libssh2_agent_list_identities(agent) < 0) {
                r = call_check(a->call);
                if (r < 0)
                        r = call_fail_errno(a->call, r, "the agent did not answer");
                else if (!is_rsa)
                        tried(a, "the agent", "does not answer");
        } else {
                r = try_agent_keys(a, agent, is_rsa);
        }
        (void)libssh2_agent_disconnect(agent); /* may never have been connected */
        libssh2_agent_free(agent);
        return r;
}

static int try_keys(struct auth *a, bool is_rsa)
{
        bool is_named = a->target->identities;
        int r = is_named ? try_files(a, is_rsa) : try_agent(a, is_rsa);

        if (r != 0)
                return r;
        return is_named ? try_agent(a, is_rsa) : try_files(a, is_rsa);
}

/* -- passwords */

static int try_password(struct auth *a)
{
        const char *password = a->target->password;
        int r, rc;

        SOCK_AWAIT(a->k, a->call, r, rc,
                   libssh2_userauth_password_ex(a->session, a->target->user, a->user_size, password,
                                                (unsigned)strlen(password), NULL));
        return r < 0 ? r : judge(a, rc, "password");
}

/* The first question that hides its answer gets the password; it is given once. */
static void answer(const char *name, int name_size, const char *instruction, int instruction_size,
                   int count, const LIBSSH2_USERAUTH_KBDINT_PROMPT *prompts,
                   LIBSSH2_USERAUTH_KBDINT_RESPONSE *responses, void **abstract)
{
        struct sock *k = *abstract;

        (void)name; /* foreign text that nobody reads */
        (void)name_size;
        (void)instruction;
        (void)instruction_size;
        for (int i = 0; i < count; i++) {
                size_t size;
                char *text;

                responses[i].text = NULL;
                responses[i].length = 0;
                if (prompts[i].echo || !k->password)
                        continue;
                size = strlen(k->password);
                text = sock_alloc(size + 1, abstract);
                if (!text)
                        continue;
                memcpy(text, k->password, size + 1);
                responses[i].text = text;
                responses[i].length = (unsigned)size;
                k->password = NULL;
        }
}

static int try_questions(struct auth *a)
{
        int r, rc;

        a->k->password = a->target->password;
        SOCK_AWAIT(a->k, a->call, r, rc,
                   libssh2_userauth_keyboard_interactive_ex(a->session, a->target->user,
                                                            a->user_size, answer));
        a->k->password = NULL;
        return r < 0 ? r : judge(a, rc, "keyboard-interactive");
}

static int try_passwords(struct auth *a)
{
        int r = 0;

        if (!a->target->password)
                return 0;
        /* After a key it may take what it did not before. */
        if (!takes(a, "password") && !takes(a, "keyboard-interactive"))
                r = get_methods(a);
        if (r == 0 && takes(a, "password"))
                r = try_password(a);
        if (r == 0 && takes(a, "keyboard-interactive"))
                r = try_questions(a);
        return r;
}

static int try_all(struct auth *a)
{
        int r = get_methods(a);

        if (r == 0 && takes(a, "publickey"))
                r = try_keys(a, false);
        if (r == 0 && takes(a, "publickey"))
                r = try_keys(a, true);
        if (r == 0)
                r = try_passwords(a);
        return r;
}

static void find_usual(struct auth *a)
{
        static const char *const names[USUAL_COUNT] = {"id_ed25519", "id_ecdsa", "id_rsa"};
        const char *home = getenv("HOME"); /* NOLINT(concurrency-mt-unsafe): nothing sets any */

        for (size_t i = 0; home && i < USUAL_COUNT; i++) {
                (void)snprintf(a->paths[i], sizeof(a->paths[i]), "%s/.ssh/%s", home, names[i]);
                a->usual[i] = a->paths[i];
        }
}

static int refused(struct auth *a)
{
        char note[256] = "";

        if (a->has_rsa && !has_rsa_sha2())
                (void)snprintf(note, sizeof(note),
                               "; RSA keys need libssh2 1.11 (this is %s): use an ed25519 or ecdsa "
                               "key, or transport=openssh",
                               libssh2_version(0));
        return call_fail(a->call, -EACCES, "'%s' was not let in: tried %s; the server takes %s%s",
                         a->target->user,
                         a->tried.size ? buf_str(&a->tried) : "nothing, there was nothing to try",
                         a->methods[0] ? a->methods : "nothing", note);
}

int auth_login(struct sock *k, const struct ssh_target *target, struct call *c)
{
        struct auth *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return call_fail_errno(c, -ENOMEM, "logging in");
        *a = (struct auth){
                .k = k,
                .session = k->session,
                .target = target,
                .call = c,
                .user_size = (unsigned)strlen(target->user),
                .tried = BUF_INIT(TRIED_MAX),
        };
        find_usual(a);
        k->call = c;
        r = try_all(a);
        k->call = NULL;
        if (r == 0)
                r = refused(a);
        buf_done(&a->tried);
        free(a);
        return r < 0 ? r : 0;
}
