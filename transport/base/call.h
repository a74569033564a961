/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What travels with each request that may take time or fail: its deadline, a way to cancel it, and
 * the one sentence that tells people why it failed. A call belongs to the thread that carries it
 * out; only call_cancel comes from others.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CALL_SENTENCE_MAX 1024 /* bytes with NUL; what is longer is cut, and says so by "..." */

struct call {
        uint64_t deadline_ns; /* CLOCK_MONOTONIC; NEVER_NS for none */
        atomic_bool is_cancelled;
        uint64_t id; /* for logs; unique in this process */
        bool made_nothing; /* of a creation that failed: certainly nothing is there of it */
        char sentence[CALL_SENTENCE_MAX]; /* "" while nothing failed */
};

void call_init(struct call *c, uint64_t deadline_ns);
void call_cancel(struct call *c);

/* 0, -EINTR when cancelled, -ETIMEDOUT when the deadline has passed. */
int call_check(const struct call *c);

/**
 * Record why this call failed and return `code`, so that a failure is one line: return call_fail(c,
 * -EINVAL, "..."). The latest sentence wins: a caller that knows more says it again, with call_wrap
 * keeping the cause.
 */
int call_fail(struct call *c, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/*
 * Put text before the sentence that is there: "create" + "no space left" is "create: no space
 * left"; text that ends in a blank brings its own joint. While there is no sentence, the text of
 * errno stands in. Returns `code`.
 */
int call_wrap(struct call *c, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* call_fail with the text of errno: "open /x: Permission denied". `code` is negative. */
int call_fail_errno(struct call *c, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__ /* so that it knows that their value is `code`, no success */
#define call_fail(c, code, ...) ((void)(call_fail)(c, code, __VA_ARGS__), (code))
#define call_wrap(c, code, ...) ((void)(call_wrap)(c, code, __VA_ARGS__), (code))
#define call_fail_errno(c, code, ...) ((void)(call_fail_errno)(c, code, __VA_ARGS__), (code))
#endif
