/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutex and condition with clang's thread-safety annotations. No lock is held across I/O, a
 * provider call, a callback or a reply to the kernel. Conditions wait on CLOCK_MONOTONIC.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__clang__)
#define TSA(x) __attribute__((x))
#else
#define TSA(x)
#endif
#define CAPABILITY(name) TSA(capability(name))
#define GUARDED_BY(m) /* for the reader: clang can't name struct members in C */
#define REQUIRES(...) TSA(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) TSA(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS TSA(no_thread_safety_analysis)

struct CAPABILITY("mutex") mutex {
        pthread_mutex_t m;
};

struct cond {
        pthread_cond_t c;
};

void mutex_init(struct mutex *m);
void mutex_done(struct mutex *m);
void mutex_lock(struct mutex *m) ACQUIRE(m);
void mutex_unlock(struct mutex *m) RELEASE(m);

void cond_init(struct cond *c);
void cond_done(struct cond *c);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);
void cond_wait(struct cond *c, struct mutex *m) REQUIRES(m);
/* False when `deadline_ns` (CLOCK_MONOTONIC) passed; NEVER_NS waits without end. */
bool cond_wait_until(struct cond *c, struct mutex *m, uint64_t deadline_ns) REQUIRES(m);
