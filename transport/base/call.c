/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: every sentence is put together aside first, so that it may quote the one that is there. */

#include "transport/base/call.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "transport/base/clock.h"

#undef call_fail /* the analyzer's, as the header has them */
#undef call_wrap
#undef call_fail_errno

static atomic_uint_fast64_t last_id;

void call_init(struct call *c, uint64_t deadline_ns)
{
        c->deadline_ns = deadline_ns;
        atomic_init(&c->is_cancelled, false);
        c->id = atomic_fetch_add(&last_id, 1) + 1;
        c->made_nothing = false;
        c->sentence[0] = '\0';
}

void call_cancel(struct call *c)
{
        atomic_store(&c->is_cancelled, true);
}

int call_check(const struct call *c)
{
        if (atomic_load(&c->is_cancelled))
                return -EINTR;
        if (c->deadline_ns != NEVER_NS && clock_mono_ns() >= c->deadline_ns)
                return -ETIMEDOUT;
        return 0;
}

struct sentence {
        char text[CALL_SENTENCE_MAX];
        size_t size;
        bool is_cut;
};

static void add(struct sentence *s, const char *text)
{
        size_t size = strlen(text), room = sizeof(s->text) - 1 - s->size;

        if (size > room) {
                size = room;
                s->is_cut = true;
        }
        memcpy(s->text + s->size, text, size);
        s->size += size;
}

static void addv(struct sentence *s, const char *format, va_list args)
        __attribute__((format(printf, 2, 0)));
static void addv(struct sentence *s, const char *format, va_list args)
{
        int n = vsnprintf(s->text, sizeof(s->text), format, args);

        s->size = n < 0 ? 0 : (size_t)n;
        if (s->size >= sizeof(s->text)) {
                s->size = sizeof(s->text) - 1;
                s->is_cut = true;
        }
}

/* Make it the call's; a cut one ends in "...", and not within a UTF-8 sequence. */
static void commit(struct call *c, struct sentence *s)
{
        if (s->is_cut) {
                size_t at = sizeof(s->text) - sizeof("...");

                while (at > 0 && ((unsigned char)s->text[at] & 0xc0) == 0x80)
                        at--;
                s->size = at;
                s->is_cut = false;
                add(s, "...");
        }
        s->text[s->size] = '\0';
        memcpy(c->sentence, s->text, s->size + 1);
}

int call_fail(struct call *c, int code, const char *format, ...)
{
        struct sentence s = {0};
        va_list args;

        assert(code < 0);
        va_start(args, format);
        addv(&s, format, args);
        va_end(args);
        commit(c, &s);
        return code;
}

static bool ends_in_blank(const struct sentence *s)
{
        return s->size > 0 && s->text[s->size - 1] == ' ';
}

int call_wrap(struct call *c, int code, const char *format, ...)
{
        struct sentence s = {0};
        va_list args;

        assert(code < 0);
        va_start(args, format);
        addv(&s, format, args);
        va_end(args);
        if (!ends_in_blank(&s))
                add(&s, ": ");
        add(&s, c->sentence[0] != '\0' ? c->sentence : strerrordesc_np(-code) ?: "unknown error");
        commit(c, &s);
        return code;
}

int call_fail_errno(struct call *c, int code, const char *format, ...)
{
        struct sentence s = {0};
        va_list args;

        assert(code < 0);
        va_start(args, format);
        addv(&s, format, args);
        va_end(args);
        add(&s, ": ");
        add(&s, strerrordesc_np(-code) ?: "unknown error");
        commit(c, &s);
        return code;
}
