/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FNV-1a, in two widths: for a checksum of what a crash may have cut, and to spread names. Whoever
 * chooses the bytes can make two values equal: nothing hostile is looked up by it (map.h).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH32_START UINT32_C(0x811c9dc5)
#define HASH64_START UINT64_C(0xcbf29ce484222325)

/* `hash` goes on with more bytes; begin with HASH32_START. */
static inline uint32_t hash32(uint32_t hash, const void *data, size_t size)
{
        const unsigned char *p = data;

        for (size_t i = 0; i < size; i++)
                hash = (hash ^ p[i]) * UINT32_C(0x01000193);
        return hash;
}

static inline uint32_t hash32_text(const char *text)
{
        return hash32(HASH32_START, text, strlen(text));
}

/* `hash` goes on with more bytes; begin with HASH64_START. */
static inline uint64_t hash64(uint64_t hash, const void *data, size_t size)
{
        const unsigned char *p = data;

        for (size_t i = 0; i < size; i++)
                hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
        return hash;
}
