/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locals that own something give it back when they leave scope.
 *
 *      _cleanup_(freep) char *name = NULL;
 *      _cleanup_(closep) int fd = -1;
 *      ...
 *      *ret = STEAL(name);
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

/* Hand a pointer on: yields it and leaves NULL behind, so that the cleanup does nothing. */
#define STEAL(p)                                                                                   \
        ({                                                                                         \
                __typeof__(p) *steal_at_ = &(p);                                                   \
                __typeof__(p) steal_value_ = *steal_at_;                                           \
                *steal_at_ = NULL;                                                                 \
                steal_value_;                                                                      \
        })

/* The same for a descriptor; leaves -1 behind. */
#define STEAL_FD(fd)                                                                               \
        ({                                                                                         \
                int *steal_at_ = &(fd);                                                            \
                int steal_value_ = *steal_at_;                                                     \
                *steal_at_ = -1;                                                                   \
                steal_value_;                                                                      \
        })

/* `p` is the address of a pointer that malloc gave. errno is kept. */
static inline void freep(void *p)
{
        free(*(void **)p);
}

/* errno is kept, so that a failing path can report why it failed. */
static inline void closep(const int *fd)
{
        if (*fd >= 0) {
                int saved = errno;

                (void)close(*fd); /* the data was checked where it was written */
                errno = saved;
        }
}

static inline void closedirp(DIR **dir)
{
        if (*dir)
                (void)closedir(*dir); /* opened for reading only */
}
