/* SPDX-License-Identifier: Apache-2.0 */
/* Names, and the guess at what a misspelt word meant. */

#include "transport/base/names.h"

#include <stddef.h>
#include <string.h>

static bool is_alnum(char c)
{
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool name_is_valid(const char *name)
{
        size_t size = strnlen(name, NAME_LENGTH_MAX + 1);

        if (size == 0 || size > NAME_LENGTH_MAX || !is_alnum(name[0]) || !is_alnum(name[size - 1]))
                return false;
        for (size_t i = 0; i < size; i++)
                if (!is_alnum(name[i]) && name[i] != '.' && name[i] != '_' && name[i] != '-')
                        return false;
        return true;
}

bool name_is_number(const char *name)
{
        return name[0] != '\0' && name[strspn(name, "0123456789")] == '\0';
}

#define WORD_MAX 64 /* bytes; nobody misspells longer words */

static unsigned min(unsigned a, unsigned b)
{
        return a < b ? a : b;
}

/* Insertions, deletions, substitutions and swaps of neighbours that lead from `a` to `b`. */
static unsigned distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
        unsigned rows[3][WORD_MAX + 1];
        unsigned *before = rows[0], *last = rows[1], *row = rows[2];

        for (unsigned j = 0; j <= b_size; j++) {
                last[j] = j;
                before[j] = 0; /* not read before it was a row */
        }
        for (unsigned i = 1; i <= a_size; i++) {
                unsigned *spare = before;

                row[0] = i;
                for (unsigned j = 1; j <= b_size; j++) {
                        unsigned cost = a[i - 1] != b[j - 1];

                        row[j] = min(min(last[j] + 1, row[j - 1] + 1), last[j - 1] + cost);
                        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                                row[j] = min(row[j], before[j - 2] + 1);
                }
                before = last;
                last = row;
                row = spare;
        }
        return last[b_size];
}

const char *name_nearest(const char *word, const char *const *words)
{
        size_t size = strnlen(word, WORD_MAX + 1);
        const char *nearest = NULL;
        unsigned best = 3;

        if (size > WORD_MAX)
                return NULL;
        for (; *words; words++) {
                size_t other = strnlen(*words, WORD_MAX + 1);
                unsigned d;

                if (other > WORD_MAX)
                        continue;
                d = distance(word, size, *words, other);
                if (d < best && d * 2 < size) {
                        best = d;
                        nearest = *words;
                }
        }
        return nearest;
}
