/* SPDX-License-Identifier: Apache-2.0 */
/* The agent as a program, or as a part of another that is in a sandbox. */
#pragma once

/* argv: any name, "files", an absolute path. Serves it until the input ends; the exit code. */
int agent_main(int argc, char **argv);
