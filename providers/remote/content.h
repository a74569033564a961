/* SPDX-License-Identifier: Apache-2.0 */
/* Content of files as bodies of requests, and of answers. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "transport/http/http.h"

struct file_source;

/* What is sent: bytes in memory, or a file's. */
struct content_source {
        struct http_source base; /* what a request has */
        struct file_source *file; /* NULL: from `data` */
        const char *data;
        struct call *call; /* its deadline moves with the bytes */
};

struct content_source content_of_memory(const void *data, size_t size);
struct content_source content_of_file(struct file_source *file, struct call *c);

/* A part of a file as it is asked for and comes: the request's range and sink. */
struct content_window {
        struct http_sink sink;
        struct http_range range;
        char *data; /* borrowed, of range.size bytes */
        size_t got;
};

struct content_window content_window(void *data, size_t size, uint64_t offset);
