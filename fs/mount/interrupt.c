/* SPDX-License-Identifier: Apache-2.0 */
/* See interrupt.h. */

#include "fs/mount/interrupt.h"

#include "transport/base/process.h"

bool interrupt_is_honoured(pid_t tid, bool any_signal)
{
        if (any_signal || tid <= 0)
                return true;
        return process_is_dying(tid) != 0; /* -ESRCH: it can't be seen, or is no more */
}
