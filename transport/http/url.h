/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths and queries of requests: what is put in is escaped, so that no name changes the request.
 *
 *      _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
 *
 *      r = url_add(&path, "/containers");
 *      r = r < 0 ? r : url_add_segment(&path, id);
 *      r = r < 0 ? r : url_add(&path, "/archive");
 *      r = r < 0 ? r : url_add_query(&path, "path", "/a b");
 *
 * makes /containers/ID/archive?path=%2Fa%20b. Pure; errors are -ENOMEM and -E2BIG.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

#define HTTP_PATH_MAX ((size_t)64 << 10)

/* As it is: fixed text of ours. */
int url_add(struct buf *to, const char *text);
/* '/' and one segment; "." and ".." come out as %2E. */
int url_add_segment(struct buf *to, const char *text);
/* A path of several segments: every '/' stays, the rest is escaped. */
int url_add_path(struct buf *to, const char *path);
/* '?' before the first, '&' before the others. */
int url_add_query(struct buf *to, const char *key, const char *value);
int url_add_query_number(struct buf *to, const char *key, uint64_t value);
/* Bytes, each escaped but for letters, digits and -._~ */
int url_escape(struct buf *to, const void *data, size_t size);

/* Where the query starts, or the end: sentences and logs show paths without it. */
size_t url_query_at(const char *path);
