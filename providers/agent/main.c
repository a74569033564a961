/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbxfs-agent: runs in a sandbox, put there and started by sbxfs.
 *
 *      sbxfs-agent files DIRECTORY     serve it over standard input and output, see serve.h
 */

#include "providers/agent/agent_main.h"

int main(int argc, char **argv)
{
        return agent_main(argc, argv);
}
