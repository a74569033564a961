/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A temporary directory of this test program. Needs file_remove_tree, which has a test of its own.
 */
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/file.h"

static char temp_path[64];

/*
 * Its descriptor; the program can do nothing without it. In memory where possible: a disk takes
 * half a minute for 100,000 directories.
 */
static inline int temp_open(void)
{
        int fd;

        (void)snprintf(temp_path, sizeof(temp_path), "/dev/shm/sbxfs-unit-XXXXXX");
        if (mkdtemp(temp_path) == NULL)
                (void)snprintf(temp_path, sizeof(temp_path), "/tmp/sbxfs-unit-XXXXXX");
        if ((access(temp_path, W_OK) < 0 && !mkdtemp(temp_path)) ||
            (fd = open(temp_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
                perror("mkdtemp");
                abort();
        }
        return fd;
}

static inline void temp_close(int fd)
{
        CHECK_EQ(close(fd), 0);
        CHECK_EQ(file_remove_tree(AT_FDCWD, temp_path), 0);
}
