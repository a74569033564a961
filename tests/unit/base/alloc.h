/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that runs out: makes the n-th allocation of a test step fail, for n = 1, 2, ... The
 * program is linked with dep_failing_alloc, which sends our own calls of malloc and its kin here;
 * what libc allocates for itself does not fail. One file of a program includes this; one thread at
 * a time.
 */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/check.h"

static size_t alloc_count, alloc_fail_at; /* alloc_fail_at 0: none fails */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);

static inline bool alloc_fails(void)
{
        if (alloc_fail_at == 0 || ++alloc_count != alloc_fail_at)
                return false;
        errno = ENOMEM;
        return true;
}

void *__wrap_malloc(size_t size)
{
        return alloc_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
        return alloc_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
        return alloc_fails() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text)
{
        return alloc_fails() ? NULL : __real_strdup(text);
}

/*
 * Run `step` with its first allocation failing, then with its second, and so on, until none is left
 * to fail. Each time it must say -ENOMEM, and 0 in the end. Returns how many allocations it has.
 */
static inline size_t alloc_fail_each(int (*step)(void))
{
        for (size_t n = 1;; n++) {
                int r;

                alloc_count = 0;
                alloc_fail_at = n;
                r = step();
                alloc_fail_at = 0;
                if (alloc_count < n) {
                        CHECK_EQ(r, 0);
                        return n - 1;
                }
                CHECK_EQ(r, -ENOMEM);
        }
}
