/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of conform.c that concern files: "f_list" and so on; see conform_files.c. */
#pragma once

struct box;
struct buf;
struct call;
struct json;

/* One operation; what it says is appended to `answer`. -ENOSYS: there is none of this name. */
int conform_files(const char *op, struct box *b, struct call *c, const struct json *j,
                  struct buf *answer);
