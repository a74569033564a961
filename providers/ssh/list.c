/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All sandboxes of ours on all hosts: one script a host, or SFTP where there is no shell. What a
 * former run of ours left half made is removed on the way.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/ssh/box.h"
#include "providers/ssh/config.h"
#include "providers/ssh/host.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/sftp/batch.h"

#define LIST_MAX ((size_t)32 << 20)
#define PATH_SIZE 4096

struct listing {
        struct ssh_provider *ssh;
        struct ssh_host *host;
        struct ssh_link *link;
        const char *base;
        struct box_sink *to;
        size_t count; /* what is there of ours, halves included */
        struct wordlist halves; /* keys to be swept */
};

/* ---- one sandbox ---- */

static bool is_key(const char *key, size_t size)
{
        return size > 0 && size < sizeof(((struct ssh_box *)NULL)->key) &&
               strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789") >= size;
}

/* `key` is the directory's name. Others' and damaged ones are passed over. */
static int report(struct listing *l, const char *key, const char *text, size_t size,
                  const char *word)
{
        struct marker m;
        struct box_found found = {.key = key};
        char id[sizeof(((struct box *)NULL)->id)];
        const char *raw;
        int r = marker_parse(text, size, &m);

        if (r < 0)
                return r == -ENOMEM ? r : 0;
        if (strcmp(m.owner, l->ssh->owner) == 0 && strcmp(m.key, key) == 0) {
                l->count++;
                (void)snprintf(id, sizeof(id), "%s.%s", key, l->host->id);
                found.id = id;
                found.name = m.name;
                found.status.state = workspace_state(word, &raw);
                (void)snprintf(found.status.raw, sizeof(found.status.raw), "%s", raw);
                r = l->to->found(l->to, &found);
        }
        marker_done(&m);
        return r;
}

static int add_half(struct listing *l, const char *key, size_t size)
{
        l->count++;
        return wordlist_add(&l->halves, key, size);
}

/* ---- by a shell ---- */

/*
 * Lines: "box KEY", the marker to its "end" line, "state WORD"; "half KEY". The marker's own lines
 * can't be told from ours by somebody who may write it: it is his account's.
 */
static const char script_text[] =
        "cd \"$b\" 2>/dev/null || exit 0\n"
        "for f in $(grep -lsx \"owner $o\" */" MARKER " 2>/dev/null); do\n"
        "k=${f%/*}; [ -h \"$k\" ] && continue\n"
        "printf 'box %s\\n' \"$k\"; cat \"$f\"\n"
        "printf '\\nstate %s\\n' \"$(head -n 1 \"$k/" STATE_FILE "\" 2>/dev/null)\"\n"
        "done\n"
        "for f in $(grep -lsx \"owner $o\" */" MARKER_HALF " 2>/dev/null); do\n"
        "k=${f%/*}; [ -h \"$k\" ] || printf 'half %s\\n' \"$k\"\n"
        "done\n"
        "exit 0\n";

/* The line at `text`, and the one behind it; NULL: there is none. */
static const char *next_line(const char *text, const char *end)
{
        const char *newline = memchr(text, '\n', (size_t)(end - text));

        return newline ? newline + 1 : NULL;
}

static bool begins(const char *line, const char *end, const char *word)
{
        return (size_t)(end - line) >= strlen(word) && memcmp(line, word, strlen(word)) == 0;
}

/* From "box KEY" to its "state WORD"; *at is behind it. */
static int read_box(struct listing *l, const char **at, const char *end)
{
        const char *key = *at + 4, *text = next_line(*at, end), *line = text;
        char name[sizeof(((struct ssh_box *)NULL)->key)], word[16] = "";
        size_t size;

        if (!text || !is_key(key, (size_t)(text - 1 - key)))
                return -EPROTO;
        (void)snprintf(name, sizeof(name), "%.*s", (int)(text - 1 - key), key);
        while (line && line < end && !begins(line, end, "end "))
                line = next_line(line, end);
        line = line && line < end ? next_line(line, end) : NULL;
        if (!line)
                return -EPROTO;
        size = (size_t)(line - text);
        if (line < end && *line == '\n')
                line++;
        if (!begins(line, end, "state "))
                return -EPROTO;
        *at = next_line(line, end);
        if (!*at)
                return -EPROTO;
        line += strlen("state ");
        if ((size_t)(*at - 1 - line) < sizeof(word))
                (void)snprintf(word, sizeof(word), "%.*s", (int)(*at - 1 - line), line);
        return report(l, name, text, size, word);
}

static int read_answer(struct listing *l, const struct buf *answer)
{
        const char *at = buf_str(answer), *end = at + answer->size;
        int r = 0;

        while (r == 0 && at && at < end) {
                if (begins(at, end, "box ")) {
                        r = read_box(l, &at, end);
                        if (r == -EPROTO) { /* a damaged marker: on to what follows */
                                r = 0;
                                at = next_line(at, end);
                        }
                        continue;
                }
                if (begins(at, end, "half ")) {
                        const char *newline = memchr(at, '\n', (size_t)(end - at));

                        if (newline && is_key(at + 5, (size_t)(newline - at - 5)))
                                r = add_half(l, at + 5, (size_t)(newline - at - 5));
                }
                at = next_line(at, end);
        }
        return r;
}

static int by_shell(struct listing *l, struct call *c)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(64 * 1024);
        _cleanup_(buf_done) struct buf answer = BUF_INIT(LIST_MAX);
        int r = quote_addf(&script, "b=%s o=%s\n", l->base, l->ssh->owner);

        if (r == 0)
                r = buf_add_str(&script, script_text);
        if (r < 0)
                return r;
        r = host_script(l->host, c, script.data, script.size, &answer);
        if (r > 0)
                return call_wrap(c, -EIO, "list the sandboxes of %s: ", host_name(l->host));
        return r < 0 ? r : read_answer(l, &answer);
}

/* ---- by SFTP ---- */

static int on_entry(void *ctx, const char *path, const struct stat *st, const char *target)
{
        struct wordlist *keys = ctx;

        (void)target;
        /* More than a list of words holds: the rest is asked for one by one. */
        return S_ISDIR(st->st_mode) && is_key(path, strlen(path)) &&
                               wordlist_add(keys, path, strlen(path)) == -ENOMEM
                       ? -ENOMEM
                       : 0;
}

static int on_listed(void *ctx, const char *path)
{
        (void)ctx;
        (void)path;
        return 0;
}

static int by_sftp(struct listing *l, struct call *c)
{
        _cleanup_(wordlist_done) struct wordlist keys = {0};
        const struct sftp_listing what = {.root = l->base, .depth = 1};
        const struct sftp_list_sink sink = {.entry = on_entry, .listed = on_listed, .ctx = &keys};
        int r = sftp_list(l->link->sftp, c, &what, &sink);

        if (r == -ENOENT)
                return 0;
        for (size_t i = 0; i < keys.count && r == 0; i++) {
                struct seen seen;
                const char *raw;
                char id[sizeof(((struct box *)NULL)->id)];
                struct box_found found = {.id = id, .key = keys.list[i]};

                r = workspace_look(l->link, c, l->base, keys.list[i], &seen);
                if (r < 0)
                        break;
                if ((seen.kind == SEEN_MARKED || seen.kind == SEEN_HALF) &&
                    strcmp(seen.marker.owner, l->ssh->owner) == 0 &&
                    strcmp(seen.marker.key, keys.list[i]) == 0) {
                        (void)snprintf(id, sizeof(id), "%s.%s", keys.list[i], l->host->id);
                        found.name = seen.marker.name;
                        found.status.state = workspace_state(seen.word, &raw);
                        (void)snprintf(found.status.raw, sizeof(found.status.raw), "%s", raw);
                        l->count++;
                        r = seen.kind == SEEN_HALF
                                    ? wordlist_add(&l->halves, keys.list[i], strlen(keys.list[i]))
                                    : l->to->found(l->to, &found);
                }
                seen_done(&seen);
        }
        return r;
}

/* ---- halves ---- */

/* What a run of ours died over: nobody of this run has it. */
static void sweep(struct listing *l, struct call *c)
{
        for (size_t i = 0; i < l->halves.count; i++) {
                const char *key = l->halves.list[i];
                struct seen seen;
                int r;

                if (box_is_known(l->ssh, key) ||
                    workspace_look(l->link, c, l->base, key, &seen) < 0)
                        continue;
                r = -EPERM;
                if (seen.kind == SEEN_HALF && strcmp(seen.marker.owner, l->ssh->owner) == 0 &&
                    strcmp(seen.marker.key, key) == 0)
                        r = workspace_remove(l->host, l->link, c, l->base, key);
                log_debug("ssh", "%s: sweep %s: %s", l->host->id, key, r ? c->sentence : "gone");
                c->sentence[0] = '\0';
                seen_done(&seen);
        }
}

/* ---- hosts ---- */

static int list_host(struct ssh_provider *ssh, struct ssh_host *h, struct call *c,
                     struct box_sink *to)
{
        struct listing l = {.ssh = ssh, .host = h, .to = to};
        _cleanup_(freep) char *base = NULL;
        int can, r = host_link(h, c, HOST_CONTROL, &l.link);

        if (r < 0)
                return r;
        can = host_probe(h, c);
        r = can < 0 ? can : workspace_base(h, l.link, c, false, &base);
        l.base = base;
        if (r == 0)
                r = can & HOST_SHELL ? by_shell(&l, c) : by_sftp(&l, c);
        if (r == -ENOENT)
                r = 0; /* no base: none was ever made */
        if (r == 0 && l.halves.count > 0)
                sweep(&l, c);
        if (r == 0 && l.count == 0)
                host_forget(h);
        wordlist_done(&l.halves);
        link_unref(l.link);
        if (r == 0)
                c->sentence[0] = '\0';
        return r;
}

/* A host that is silent leaves time for the others. */
static int list_bounded(struct ssh_provider *ssh, struct ssh_host *h, struct call *c,
                        struct box_sink *to, size_t left)
{
        uint64_t deadline_ns = c->deadline_ns, now_ns = clock_mono_ns();
        int r;

        if (deadline_ns != NEVER_NS && deadline_ns > now_ns && left > 1)
                c->deadline_ns = now_ns + (deadline_ns - now_ns) / left;
        r = list_host(ssh, h, c, to);
        c->deadline_ns = deadline_ns;
        return r;
}

int ssh_box_list(struct provider *p, struct call *c, struct box_sink *to)
{
        struct ssh_provider *ssh = ssh_provider_of(p);
        char sentence[CALL_SENTENCE_MAX] = "";
        struct ssh_host **all;
        size_t count;
        int first = 0, r = host_all(ssh, &all, &count);

        if (r < 0)
                return call_fail_errno(c, r, "the hosts of provider %s", ssh->base.instance);
        for (size_t i = 0; i < count; i++) {
                if (r <= 0)
                        r = list_bounded(ssh, all[i], c, to, count - i);
                if (r < 0 && first == 0) {
                        first = r;
                        memcpy(sentence, c->sentence, sizeof(sentence));
                }
                host_unref(all[i]);
        }
        free(all);
        if (r > 0)
                return 0; /* the sink had enough */
        return first < 0 ? call_fail(c, first, "%s", sentence) : 0;
}
