/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program sbxfs-holder: process 1 of a local sandbox; see holder/holder.h. Started by sbxfs
 * only:
 *
 *      sbxfs-holder REACH LISTENER EXECUTABLE ID
 *
 * REACH is namespace, uid or tree; LISTENER the descriptor of the listening socket; EXECUTABLE that
 * of this program or -1 (closed at once: nothing inside shall have it); ID is for people who look
 * at ps. `sbxfs-holder kill` ends what a killed holder left, under the uid of its sandbox.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/holder/holder.h"

static enum holder_reach parse_reach(const char *word)
{
        return strcmp(word, "namespace") == 0 ? REACH_NAMESPACE
               : strcmp(word, "uid") == 0     ? REACH_UID
                                              : REACH_TREE;
}

int main(int argc, char **argv)
{
        struct holder h = {0};

        if (argc == 2 && strcmp(argv[1], "kill") == 0 && getuid() >= 1000)
                return kill(-1, SIGKILL) < 0 && errno != ESRCH;
        if (argc != 5)
                return 2;
        h.reach = parse_reach(argv[1]);
        h.listener.fd = (int)strtol(argv[2], NULL, 10);
        holder_run(&h);
}
