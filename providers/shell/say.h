/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tools print, read: pure. For forms*.c.
 */
#pragma once

#include <stddef.h>
#include <sys/stat.h>

/*
 * What a tool says when a system call failed ends with the text of its errno, as glibc and musl
 * have it: -errno, or -EIO for what is none of those that a file can have.
 */
int say_errno(const char *text, size_t size);

/* The format for stat -c; what stands behind a line of it is the caller's. */
#define SAY_STAT "%f %s %Y %Z %X %i %h %b"
#define SAY_STAT_NS "%f %s %.9Y %.9Z %.9X %i %h %b"

/*
 * One such line at the beginning of `text`: the bytes it takes, with the byte behind it, which must
 * be `end`; 0 when it is none.
 */
size_t say_stat(const char *text, size_t size, char end, struct stat *ret);
