/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/ssh.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/lock.h"
#include "transport/base/random.h"

#define NOISE_MAX ((size_t)64 * 1024) /* before our frame: what rc files print */
#define ERRORS_MAX ((size_t)4096)

/* One program, as its events come. */
struct program {
        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct buf out;
        struct buf errors;
        bool is_over;
        bool is_too_much;
        struct stream_end end;
};

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct program *p = ctx;

        mutex_lock(&p->lock);
        if (is_stderr) {
                size_t room = ERRORS_MAX - p->errors.size;

                /* only for a sentence */
                (void)buf_add(&p->errors, data, size < room ? size : room);
        } else if (!p->is_too_much && buf_add(&p->out, data, size) < 0) {
                p->is_too_much = true;
                cond_broadcast(&p->changed);
        }
        mutex_unlock(&p->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct program *p = ctx;

        mutex_lock(&p->lock);
        p->end = *end;
        p->is_over = true;
        cond_broadcast(&p->changed);
        mutex_unlock(&p->lock);
}

static int wait_over(struct program *p, struct call *c)
{
        int r = 0;

        mutex_lock(&p->lock);
        while (r == 0 && !p->is_over && !p->is_too_much) {
                uint64_t slice_ns = clock_after(50 * NS_PER_MS);

                (void)cond_wait_until(&p->changed, &p->lock,
                                      slice_ns < c->deadline_ns ? slice_ns : c->deadline_ns);
                r = call_check(c);
        }
        if (r == 0 && p->is_too_much)
                r = -E2BIG;
        mutex_unlock(&p->lock);
        return r < 0 ? call_fail_errno(c, r, "a script on the host") : 0;
}

/* ---- frames ---- */

/*
 * What rc files print comes before, so the answer stands between two lines that nobody else can
 * know. The script has no input: it is the shell's own.
 */
static int frame(const char *mark, const char *script, size_t size, struct buf *to)
{
        int r = buf_addf(to, "LC_ALL=C; export LC_ALL\nprintf '\\n%%s\\n' %s\n(\n", mark);

        if (r == 0)
                r = buf_add(to, script, size);
        if (r == 0)
                r = buf_addf(to, "\n) </dev/null\nprintf '\\n%%s %%d\\n' %s $?\nexit 0\n", mark);
        return r;
}

/* The code, with the text between the frames in `out`; -EPROTO when they aren't there. */
static int unframe(const char *mark, const struct buf *all, struct buf *out)
{
        char first[RANDOM_ID_SIZE + 4], last[RANDOM_ID_SIZE + 4];
        const char *begin, *end, *at;
        int r;

        (void)snprintf(first, sizeof(first), "\n%s\n", mark);
        (void)snprintf(last, sizeof(last), "\n%s ", mark);
        if (all->size == 0)
                return -EPROTO;
        begin = memmem(all->data, all->size, first, strlen(first));
        if (!begin)
                return -EPROTO;
        begin += strlen(first);
        /* It may begin with the newline that ends the first frame: an empty answer. */
        at = begin - 1;
        end = memmem(at, (size_t)(all->data + all->size - at), last, strlen(last));
        if (!end)
                return -EPROTO;
        r = end > begin && out ? buf_add(out, begin, (size_t)(end - begin)) : 0;
        return r < 0 ? r : (int)(strtoul(end + strlen(last), NULL, 10) & 0xff);
}

static int run(struct program *p, struct program_opener *o, struct call *c, const struct buf *input)
{
        const struct stream_events events = {.data = on_data, .end = on_end, .ctx = p};
        struct stream *stream = NULL;
        int r = o->open(o, c, "exec sh", &events, &stream);

        if (r < 0)
                return r;
        r = stream_send(stream, input->data, input->size);
        if (r == 0)
                r = stream_send_eof(stream);
        if (r == -EPIPE) /* its end says why */
                r = 0;
        if (r == 0)
                r = wait_over(p, c);
        stream_close(stream);
        return r;
}

/* With what it complained of, on one line. */
static void say_errors(struct call *c, const struct buf *errors)
{
        char text[512];
        size_t size = errors->size;

        while (size > 0 && errors->data[size - 1] == '\n')
                size--;
        escape_text(buf_str(errors), size, text, sizeof(text));
        (void)call_fail(c, -EIO, "%s", text[0] ? text : "a script on the host failed");
}

int program_script(struct program_opener *o, struct call *c, const char *script, size_t size,
                   struct buf *out)
{
        struct program p = {.out = BUF_INIT((out ? out->max : 0) + NOISE_MAX),
                            .errors = BUF_INIT(ERRORS_MAX)};
        _cleanup_(buf_wipe) struct buf input = BUF_INIT(size + 4096);
        char mark[RANDOM_ID_SIZE];
        int r = random_id(mark);

        if (r == 0)
                r = frame(mark, script, size, &input);
        if (r < 0)
                return call_fail_errno(c, r, "a script on the host");
        mutex_init(&p.lock);
        cond_init(&p.changed);
        r = run(&p, o, c, &input);
        if (r == 0) {
                r = unframe(mark, &p.out, out);
                if (r == -EPROTO && p.end.error < 0)
                        r = call_fail(c, p.end.error, "%s", p.end.sentence);
                else if (r == -EPROTO && p.end.signal != 0)
                        r = call_fail(c, -EAGAIN, "the account's shell was killed");
                else if (r == -EPROTO)
                        r = call_fail(c, r, "the account's shell didn't run our script");
                else if (r > 0)
                        say_errors(c, &p.errors);
        }
        buf_done(&p.out);
        buf_done(&p.errors);
        cond_done(&p.changed);
        mutex_done(&p.lock);
        return r;
}

/* ---- the probe ---- */

static const char probe_script[] =
        "has() { command -v \"$1\" >/dev/null 2>&1 && printf ' %s' \"$1\"; }\n"
        "says() { case \"$(\"$2\" --help 2>&1 </dev/null)\" in *\"$3\"*) printf ' %s' \"$1\";; "
        "esac; }\n"
        "printf sh\n"
        "for x in setsid mkfifo timeout tar gzip dd tee; do has $x; done\n"
        "[ \"$(find / -maxdepth 0 -printf x 2>/dev/null)\" = x ] && printf ' find-printf'\n"
        "[ \"$(stat -c %F / 2>/dev/null)\" = directory ] && printf ' stat-c'\n"
        "[ \"$(printf abc | head -c 2 2>/dev/null)\" = ab ] && printf ' head-c'\n"
        "[ \"$(printf abc | tail -c +2 2>/dev/null)\" = bc ] && printf ' tail-c'\n"
        "says fallocate fallocate punch\n"
        "says rm-one-fs rm --one-file-system\n"
        "says mv-t mv no-target\n"
        "[ -r /proc/self/stat ] && printf ' proc'\n"
        "sleep 0.01 2>/dev/null && printf ' sleep-fraction'\n"
        "if d=$(mktemp -d 2>/dev/null); then\n"
        "ln -s none \"$d/l\" && touch -chm -d @1000000007.123456789 \"$d/l\"\n"
        "case $(find \"$d/l\" -maxdepth 0 -printf %T@) in 1000000007.123456789*) "
        "printf ' touch-ns';; esac\n"
        "rm -rf \"$d\"\n"
        "fi 2>/dev/null\n"
        "exit 0\n";

static const struct {
        const char *word;
        enum host_can can;
} words[] = {
        {"sh", HOST_SHELL},
        {"setsid", HOST_SETSID},
        {"find-printf", HOST_FIND_PRINTF},
        {"stat-c", HOST_STAT_C},
        {"head-c", HOST_HEAD_C},
        {"tail-c", HOST_TAIL_C},
        {"fallocate", HOST_FALLOCATE},
        {"rm-one-fs", HOST_RM_ONE_FS},
        {"proc", HOST_PROC},
        {"mkfifo", HOST_MKFIFO},
        {"sleep-fraction", HOST_SLEEP_FRACTION},
        {"timeout", HOST_TIMEOUT},
        {"tar", HOST_TAR},
        {"gzip", HOST_GZIP},
        {"mv-t", HOST_MV_T},
        {"dd", HOST_DD},
        {"tee", HOST_TEE},
        {"touch-ns", HOST_TOUCH_NS},
};

static int read_words(const char *text)
{
        unsigned can = 0;

        while (*text) {
                size_t size = strcspn(text, " \n");

                for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                        if (strlen(words[i].word) == size && memcmp(words[i].word, text, size) == 0)
                                can |= words[i].can;
                text += size;
                text += strspn(text, " \n");
        }
        return (int)can;
}

int program_probe(struct program_opener *o, struct call *c, uint64_t span_ns)
{
        _cleanup_(buf_done) struct buf out = BUF_INIT(4096);
        uint64_t deadline_ns = c->deadline_ns, own_ns = clock_after(span_ns);
        bool is_own = own_ns < deadline_ns;
        int r;

        if (is_own)
                c->deadline_ns = own_ns;
        r = program_script(o, c, probe_script, sizeof(probe_script) - 1, &out);
        c->deadline_ns = deadline_ns;
        if (r >= 0)
                return read_words(buf_str(&out));
        /* Another program answers in the shell's place, or none: files only. */
        if (r == -EPROTO || r == -EOPNOTSUPP || r == -E2BIG) {
                c->sentence[0] = '\0';
                return 0;
        }
        return r == -ETIMEDOUT && is_own ? -EAGAIN : r;
}
