/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/agent/agent_main.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/agent/serve.h"

int agent_main(int argc, char **argv)
{
        struct serve_conn k;
        int code;

        if (argc != 3 || strcmp(argv[1], "files") != 0 || argv[2][0] != '/') {
                (void)fputs("usage: sbxfs-agent files DIRECTORY\n", stderr);
                return 2;
        }
        (void)umask(0); /* modes are those of the changes */
        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGXFSZ, SIG_IGN);
        (void)signal(SIGCHLD, SIG_IGN); /* nobody waits for those that it splits into */
        serve_conn_init(&k, STDIN_FILENO, STDOUT_FILENO);
        code = serve_files(&k, argv[2]);
        serve_conn_done(&k);
        return code;
}
