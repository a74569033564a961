/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of status files: "key value" lines in a fixed order, every key always there, `-` when
 * not known; and the same as JSON.
 */
#pragma once

struct buf;
struct sandbox_info;
struct task_info;

/* 0 or -ENOMEM. */
int print_sandbox_status(struct buf *to, const struct sandbox_info *s);
int print_task_status(struct buf *to, const struct task_info *t);

/* "key value" lines as one flat JSON object of strings, null for `-`. */
int print_json(struct buf *to, const struct buf *lines);
