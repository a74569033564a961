/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program whose input comes as files and whose output goes as text, for services that carry
 * nothing else:
 *
 *      DIR/N.SIZE      the N-th piece of its input (from 1), whole once it has SIZE bytes; removed
 *                      when it was taken. One of no bytes ends the input
 *      our stdout      "-" once DIR is there; then what it prints, base64 in lines
 *
 * It makes DIR, which is nobody else's, and removes it at the program's end.
 */
#pragma once

/* argv: the program. What it ended with; 128 and the number of its signal. */
int relay_main(const char *dir, char **argv);
