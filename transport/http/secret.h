/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must not be shown: keys and tokens that go out in headers. A set belongs to an endpoint or
 * to one request; it is fixed before anybody else sees it, and wiped when freed.
 */
#pragma once

#include <stddef.h>

struct http_header;

struct secrets {
        char **values;
        size_t count;
};

/* Those of the headers that are secret. 0 or -ENOMEM. */
int secrets_add(struct secrets *s, const struct http_header *headers, size_t count);
void secrets_done(struct secrets *s);
/*
 * Overwrite each in `text` with stars, as long as it, and at its end also what is only the beginning
 * of one: whoever cut the text may have cut there.
 */
void secrets_hide(const struct secrets *s, char *text);
void secrets_hide_data(const struct secrets *s, char *data, size_t size);

void wipe_free(char *text); /* accepts NULL */
