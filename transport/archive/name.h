/* SPDX-License-Identifier: Apache-2.0 */
/* Which names a stream may have; write.c and read.c share it. */
#pragma once

#include <stdbool.h>
#include <string.h>

#include "transport/archive/tar.h"

static inline bool tar_name_is_right(const char *name)
{
        if (strlen(name) > TAR_NAME_MAX)
                return false;
        while (true) {
                size_t n = strcspn(name, "/");

                if (n == 0 || (n == 1 && name[0] == '.') ||
                    (n == 2 && name[0] == '.' && name[1] == '.'))
                        return false;
                if (!name[n])
                        return true;
                name += n + 1;
        }
}
