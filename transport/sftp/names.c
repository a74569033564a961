/* SPDX-License-Identifier: Apache-2.0 */
/* Names as they came, turned into entries one by one on the thread that wants them. */

#include "transport/sftp/names.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct sftp_names {
        char name[NAME_MAX + 1]; /* the last that was given */
        size_t size;
        unsigned char entries[];
};

struct sftp_names *sftp_names_new(struct wire_bytes entries)
{
        struct sftp_names *n = malloc(sizeof(*n) + entries.size);

        if (!n)
                return NULL;
        n->size = entries.size;
        memcpy(n->entries, entries.data, entries.size);
        return n;
}

void sftp_names_free(struct sftp_names *names)
{
        free(names);
}

bool wire_name_is_good(struct wire_bytes name)
{
        if (name.size == 0 || name.size > NAME_MAX || memchr(name.data, '/', name.size) ||
            memchr(name.data, 0, name.size))
                return false;
        return !(name.data[0] == '.' &&
                 (name.size == 1 || (name.size == 2 && name.data[1] == '.')));
}

bool sftp_names_next(struct sftp_names *names, size_t *cursor, struct sftp_name *ret)
{
        struct wire_bytes left = {names->entries + *cursor, names->size - *cursor};
        struct wire_bytes name;
        struct stat st;

        while (wire_next_name(&left, &name, &st)) {
                *cursor = names->size - left.size;
                if (!wire_name_is_good(name))
                        continue;
                memcpy(names->name, name.data, name.size);
                names->name[name.size] = '\0';
                *ret = (struct sftp_name){.name = names->name, .st = st};
                return true;
        }
        *cursor = names->size;
        return false;
}
