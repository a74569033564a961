/* SPDX-License-Identifier: Apache-2.0 */
/* What is open on nodes, and what the kernel was told of them. */

#include "fs/volume/nodes_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* ---- open handles ---- */

void nodes_open(struct nodes *t, uint64_t number, struct node_open *o)
{
        struct node *n;

        o->node = number;
        o->refs = 1;
        o->next = NULL;
        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n) {
                o->next = n->open;
                n->open = o;
                n->kept = KEPT_SOMETHING;
        }
        list_add_tail(&t->open, &o->of_all);
        mutex_unlock(&t->lock);
}

struct node_open *nodes_any_open(struct nodes *t, uint64_t number)
{
        struct node_open *o = NULL;
        const struct node *n;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n && n->open) {
                o = n->open;
                o->refs++;
        }
        mutex_unlock(&t->lock);
        return o;
}

bool nodes_unref(struct nodes *t, struct node_open *o)
{
        bool is_last;

        mutex_lock(&t->lock);
        is_last = --o->refs == 0;
        if (is_last) {
                struct node *n = table_get_node(t, o->node);
                struct node_open **link = n ? &n->open : NULL;

                while (link && *link && *link != o)
                        link = &(*link)->next;
                if (link && *link)
                        *link = o->next;
                list_remove(&o->of_all);
                if (n)
                        table_reap(t, (uint32_t)o->node);
        }
        mutex_unlock(&t->lock);
        return is_last;
}

static struct node *file_of(const struct nodes *t, struct list *handle) REQUIRES(t->lock)
{
        struct node *n = table_get_node(t, list_entry(handle, struct node_open, of_all)->node);

        return n && n->kind != S_IFDIR ? n : NULL;
}

/* Room for the numbers of all that are open. */
static uint64_t *numbers_new(const struct nodes *t) REQUIRES(t->lock)
{
        size_t count = 0;

        list_for_each (pos, &t->open)
                count++;
        return calloc(count ? count : 1, sizeof(uint64_t));
}

int nodes_all_open(struct nodes *t, uint64_t **ret, size_t *ret_count)
{
        uint64_t *numbers;
        size_t i = 0;

        mutex_lock(&t->lock);
        numbers = numbers_new(t);
        if (numbers) {
                list_for_each (pos, &t->open)
                        if (file_of(t, pos))
                                numbers[i++] = list_entry(pos, struct node_open, of_all)->node;
                *ret = numbers;
                *ret_count = i;
        }
        mutex_unlock(&t->lock);
        return numbers ? 0 : -ENOMEM;
}

/* ---- what the kernel keeps of open files ---- */

void nodes_keep(struct nodes *t, uint64_t number)
{
        struct node *n;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n)
                n->kept = KEPT_SOMETHING;
        mutex_unlock(&t->lock);
}

bool nodes_may_keep(struct nodes *t, uint64_t number, uint64_t stamp)
{
        struct node *n;
        bool may = true;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n && n->open && n->kind != S_IFDIR) {
                may = n->kept == KEPT_SOMETHING || n->kept == KEPT_ASKED;
                if (may)
                        n->kept = KEPT_SOMETHING;
                else if (n->kept == KEPT_NOTHING)
                        n->kept = KEPT_ASKED;
        }
        if (n && may)
                n->told = stamp;
        mutex_unlock(&t->lock);
        return may;
}

int nodes_recall(struct nodes *t, uint64_t **ret, size_t *ret_count)
{
        uint64_t *numbers;
        size_t i = 0;

        mutex_lock(&t->lock);
        numbers = numbers_new(t);
        if (numbers) {
                list_for_each (pos, &t->open) {
                        struct node *n = file_of(t, pos);
                        bool is_kept = n && (n->kept == KEPT_SOMETHING || n->kept == KEPT_RECALLED);

                        if (is_kept)
                                numbers[i++] = list_entry(pos, struct node_open, of_all)->node;
                        if (n)
                                n->kept = is_kept ? KEPT_RECALLED : KEPT_NOTHING;
                }
                *ret = numbers;
                *ret_count = i;
        }
        mutex_unlock(&t->lock);
        return numbers ? 0 : -ENOMEM;
}

void nodes_recalled(struct nodes *t)
{
        mutex_lock(&t->lock);
        list_for_each (pos, &t->open) {
                struct node *n = file_of(t, pos);

                if (n && n->kept == KEPT_RECALLED)
                        n->kept = KEPT_NOTHING;
        }
        mutex_unlock(&t->lock);
}

/* ---- what the kernel was told ---- */

bool nodes_same_pages(struct nodes *t, uint64_t number, uint64_t stamp)
{
        struct node *n;
        bool is_same_stamp = false;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n) {
                is_same_stamp = stamp != 0 && n->pages == stamp;
                n->pages = stamp;
        }
        mutex_unlock(&t->lock);
        return is_same_stamp;
}

bool nodes_told_others(struct nodes *t, uint64_t number, uint64_t stamp)
{
        struct node *n;
        bool is_other = false;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n) {
                is_other = n->told != 0 && n->told != stamp;
                if (is_other)
                        n->told = 0;
        }
        mutex_unlock(&t->lock);
        return is_other;
}

bool nodes_hand_out(struct nodes *t, uint64_t number, uint32_t now_ms, uint32_t span_ms)
{
        struct node *n;
        bool is_new = true;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n) {
                is_new = n->handed_ms == 0 || now_ms - n->handed_ms >= span_ms ||
                         (int32_t)(n->handed_ms - t->handed_since_ms) <= 0;
                if (is_new)
                        n->handed_ms = now_ms ? now_ms : 1;
        }
        mutex_unlock(&t->lock);
        return is_new;
}

void nodes_hand_out_anew(struct nodes *t, uint32_t now_ms)
{
        mutex_lock(&t->lock);
        t->handed_since_ms = now_ms;
        mutex_unlock(&t->lock);
}
