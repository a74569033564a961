/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Link targets: byte 0 is the depth of the link's directory, then come `inside` and the link's
 * text, separated by NUL. Whatever they are, the answer may not lead out: "../" at most `depth`
 * times, then names, and no ".." any more.
 */

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/anchor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ups at the start; -1 when there is one behind a name, or the path is absolute. */
static int count_ups(const char *path)
{
        int ups = 0;
        int has_name = 0;

        if (path[0] == '/' || path[0] == '\0')
                return -1;
        while (*path) {
                size_t n = strcspn(path, "/");

                if (n == 2 && memcmp(path, "..", 2) == 0) {
                        if (has_name)
                                return -1;
                        ups++;
                } else if (n > 0 && !(n == 1 && path[0] == '.')) {
                        has_name = 1;
                }
                path += n + strspn(path + n, "/");
        }
        return ups;
}

static void check(const char *target, unsigned depth, const char *inside)
{
        char to[PATH_MAX], again[PATH_MAX];
        unsigned ups = 0;
        int r = anchor_target(target, depth, inside, to, sizeof(to), &ups);

        if (r < 0) {
                assert(r == -EINVAL || r == -ENAMETOOLONG);
                return;
        }
        assert((size_t)r == strlen(to));
        assert(count_ups(to) >= 0 && count_ups(to) == (int)ups && ups <= depth);
        /* What was answered is fine, so it comes back as it is. */
        assert(anchor_target(to, depth, inside, again, sizeof(again), NULL) == r);
        assert(strcmp(to, again) == 0);
        /* A buffer without room for the NUL is refused. */
        if (r > 0)
                assert(anchor_target(target, depth, inside, again, (size_t)r, NULL) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *text = size > 0 ? malloc(size) : NULL;
        const char *inside, *target;
        size_t length;

        if (!text)
                return 0;
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';
        inside = text;
        length = strlen(inside);
        target = length + 1 < size ? text + length + 1 : "";
        check(target, data[0], inside);
        check(target, 0, "");
        free(text);
        return 0;
}
