/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel may still hold of a volume, taken back when a command ends: names and attributes
 * that were told with a time-out (recent.h), and the pages of open files. Each node once, and only
 * if something is kept of it: attributes that are under way to the kernel while it is told to
 * forget them count for nothing there, and a read beside it ends at the size of before.
 */
#pragma once

struct nodes;
struct recent;
struct volume_events;

/* Returns when the kernel has none of it. Takes no lock across a call of `events`. */
void recall_all(struct nodes *nodes, struct recent *recent, const struct volume_events *events);
