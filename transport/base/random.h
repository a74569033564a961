/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes and identifiers, from getrandom(2). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define RANDOM_ID_SIZE 21 /* 20 characters of [a-z0-9], about 103 bits, and NUL */

int random_bytes(void *data, size_t size); /* 0 or -errno */
int random_id(char ret[RANDOM_ID_SIZE]);
