/* SPDX-License-Identifier: Apache-2.0 */
/* What stat and failing tools of a sandbox print: only what can be comes out. */

#include <assert.h>
#include <stdint.h>

#include "providers/shell/say.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const char *text = (const char *)data;
        struct stat st;
        size_t n = say_stat(text, size, '\n', &st);
        int r = say_errno(text, size);

        assert(n <= size && r < 0);
        if (n > 0) {
                assert(text[n - 1] == '\n' && (st.st_mode & S_IFMT) != 0 && st.st_size >= 0);
                assert(st.st_mtim.tv_nsec >= 0 && st.st_mtim.tv_nsec < 1000000000);
                assert(st.st_ctim.tv_nsec >= 0 && st.st_ctim.tv_nsec < 1000000000);
        }
        return 0;
}
