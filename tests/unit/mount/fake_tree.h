/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree of a few files in memory behind the interface of fs/tree/tree.h, for tests of fs/mount/
 * alone. It makes operations wait, hang and move to workers on demand.
 *
 *      plain         16 bytes, cached
 *      block         reads park until fake_open_gate; only what ends the caller ends them
 *      wait          the same, but every signal ends them
 *      turn          a read gives the number of fake_turn, once it is past the offset
 *      later         a read answers by itself after 50 ms
 *      hang          an open sleeps inside the operation, as on a hung disk, until fake_set_hang(false)
 *      work          a read answers on a worker only, there after fake_work_ms or when cancelled
 *      dir/          a lookup of `slow` in it parks until fake_open_gate; `quick` is there at once
 *      many/         10,000 names
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct tree;
struct tree_events;

#define FAKE_TEXT "sixteen letters\n"
#define FAKE_MANY 10000

enum fake_node {
        FAKE_PLAIN = 2,
        FAKE_BLOCK,
        FAKE_WAIT,
        FAKE_TURN,
        FAKE_LATER,
        FAKE_HANG,
        FAKE_WORK,
        FAKE_DIR,
        FAKE_MANY_DIR,
        FAKE_QUICK,
        FAKE_SLOW,
        FAKE_FIRST_OF_MANY = 1000,
};

struct tree *fake_tree_new(const struct tree_events *events);
void fake_tree_free(struct tree *t);

void fake_open_gate(struct tree *t); /* block, wait and dir/slow go on */
void fake_close_gate(struct tree *t);
void fake_turn(struct tree *t); /* the next number; wakes */
void fake_set_hang(struct tree *t, bool on);
void fake_set_work_ms(struct tree *t, unsigned ms);
unsigned fake_open_handles(struct tree *t);
unsigned fake_tries(struct tree *t); /* of all reads so far */
unsigned fake_hanging(struct tree *t); /* opens that sleep now */
unsigned fake_stopped(struct tree *t); /* how often something found the gate closed */
