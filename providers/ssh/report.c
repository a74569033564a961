/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/report.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BANNER_MAX 4096 /* of what is before the first frame, so much is held at once */
#define MARK_SIZE (SHELL_TOKEN_SIZE + 1) /* newline, token, blank */

void report_init(struct report *r)
{
        *r = (struct report){.in = BUF_INIT(REPORT_MAX)};
}

void report_done(struct report *r)
{
        buf_done(&r->in);
        explicit_bzero(r->token, sizeof(r->token));
}

static int errno_of(const char *name)
{
        static const struct {
                const char *name;
                int code;
        } names[] = {{"ENOENT", ENOENT}, {"EACCES", EACCES}, {"ENOTDIR", ENOTDIR},
                     {"EEXIST", EEXIST}, {"ENODEV", ENODEV}, {"EIO", EIO}};

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                if (strcmp(names[i].name, name) == 0)
                        return -names[i].code;
        }
        return -EIO;
}

/*
 * A shell's code: 128 + n is a signal where the shell said so on its own stderr, which it does not
 * for INT and PIPE: there it is taken for one that we sent.
 */
static void set_end(struct exec_end *end, int code, bool has_message, bool is_late, int sent)
{
        int number = code - 128;

        *end = (struct exec_end){.kind = EXEC_END_CODE, .value = code};
        if (is_late)
                *end = (struct exec_end){.kind = EXEC_END_TIMEOUT};
        else if (number > 0 && number <= 64 &&
                 (has_message || (number == sent && (number == SIGINT || number == SIGPIPE))))
                *end = (struct exec_end){.kind = EXEC_END_SIGNAL, .value = number};
}

int report_parse_rc(const char *line, struct exec_end *ret, char what[16])
{
        char message[4], late[4], sent[8], why[16];
        unsigned code;

        if (sscanf(line, "refused %15s %15s", what, why) == 2)
                return errno_of(why);
        if (sscanf(line, "end %3u %3s %3s %7s", &code, message, late, sent) != 4 || code > 255)
                return -EPROTO;
        set_end(ret, (int)code, message[0] == 'm', late[0] == 't', atoi(sent));
        return 0;
}

/* A frame's line, without token and newline; false: it isn't one. */
static bool take_line(struct report *r, const char *line)
{
        unsigned long long pid;
        int code;

        if (sscanf(line, "started %19llu", &pid) == 1 && !r->has_started) {
                r->has_started = true;
                r->pid = (int64_t)pid;
                return true;
        }
        if (strncmp(line, "refused ", 8) == 0) {
                code = report_parse_rc(line, &r->end, r->what);
                r->refused = code < 0 ? code : -EIO;
                return true;
        }
        if (strncmp(line, "end ", 4) == 0 && !r->has_end) {
                r->has_end = report_parse_rc(line, &r->end, r->what) == 0;
                return r->has_end;
        }
        if (strcmp(line, "none") == 0 && r->has_end) {
                r->is_done = true;
                return true;
        }
        return false;
}

/* "\nT WORD\n" at or after `from`, or NULL. */
static char *find_frame(const struct report *r, size_t from, const char *word)
{
        char mark[MARK_SIZE + 8];
        int n = snprintf(mark, sizeof(mark), "\n%s %s\n", r->token, word);

        return from < r->in.size ? memmem(r->in.data + from, r->in.size - from, mark, (size_t)n)
                                 : NULL;
}

/* Both streams' first bytes are there when the last frame is. */
static bool take_bytes(struct report *r, size_t out_at)
{
        size_t mark = MARK_SIZE + 4; /* "\nT out\n" and "\nT err\n" */
        char *err = find_frame(r, out_at + mark - 1, "err"), *done;

        done = err ? find_frame(r, (size_t)(err - r->in.data) + mark - 1, "done") : NULL;
        if (!done)
                return false;
        r->data[0] = r->in.data + out_at + mark;
        r->size[0] = err > r->data[0] ? (size_t)(err - r->data[0]) : 0;
        r->data[1] = err + mark;
        r->size[1] = done > r->data[1] ? (size_t)(done - r->data[1]) : 0;
        r->has_bytes = true;
        r->is_done = true;
        return true;
}

/* The next frame at or after `seen`. True: look again. */
static bool take_frame(struct report *r, bool *news)
{
        char mark[MARK_SIZE + 1], line[64];
        char *at, *end;
        size_t n;

        (void)snprintf(mark, sizeof(mark), "\n%s ", r->token);
        at = r->in.size > r->seen
                     ? memmem(r->in.data + r->seen, r->in.size - r->seen, mark, MARK_SIZE)
                     : NULL;
        if (!at) {
                r->seen = r->in.size > MARK_SIZE ? r->in.size - MARK_SIZE : 0;
                return false;
        }
        r->seen = (size_t)(at - r->in.data);
        end = memchr(at + MARK_SIZE, '\n', r->in.size - r->seen - MARK_SIZE);
        if (!end)
                return false;
        n = (size_t)(end - at) - MARK_SIZE;
        if (n >= sizeof(line)) {
                r->seen++;
                return true;
        }
        memcpy(line, at + MARK_SIZE, n);
        line[n] = '\0';
        if (strcmp(line, "out") == 0 && r->has_end) {
                *news |= take_bytes(r, r->seen);
                return false;
        }
        *news |= take_line(r, line);
        r->seen += MARK_SIZE; /* not its newline: the next frame begins with it */
        return !r->is_done;
}

bool report_feed(struct report *r, const void *data, size_t size)
{
        const char *at = data;
        bool news = false;

        while (size > 0 && !r->is_done) {
                size_t n = size < BANNER_MAX ? size : BANNER_MAX;

                if (buf_add(&r->in, at, n) < 0)
                        return news; /* more than there can be: the channel's end says the rest */
                at += n;
                size -= n;
                while (take_frame(r, &news))
                        ;
                if (!r->has_end && r->in.size > BANNER_MAX && r->seen > 0) {
                        buf_drop(&r->in, r->seen);
                        r->seen = 0;
                }
        }
        return news;
}
