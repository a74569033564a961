/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes and identifiers. */

#include "transport/base/random.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>

int random_bytes(void *data, size_t size)
{
        char *at = data;

        while (size > 0) {
                ssize_t n = getrandom(at, size, 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                at += n;
                size -= (size_t)n;
        }
        return 0;
}

int random_id(char ret[RANDOM_ID_SIZE])
{
        static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
        char id[RANDOM_ID_SIZE] = "";
        unsigned char bytes[32];
        size_t have = 0;

        while (have < RANDOM_ID_SIZE - 1) {
                int r = random_bytes(bytes, sizeof(bytes));

                if (r < 0)
                        return r;
                for (size_t i = 0; i < sizeof(bytes) && have < RANDOM_ID_SIZE - 1; i++)
                        if (bytes[i] < 252) /* 7 * 36: every letter equally likely */
                                id[have++] = letters[bytes[i] % 36];
        }
        for (size_t i = 0; i < RANDOM_ID_SIZE; i++)
                ret[i] = id[i];
        return 0;
}
