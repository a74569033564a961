/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doubly linked list whose links live in the members.
 * Guarded by whatever guards the owner of the head.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
        struct list *prev, *next;
};

#define LIST_INIT(head) ((struct list){&(head), &(head)})
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define list_entry(ptr, type, member) container_of(ptr, type, member)

#define list_for_each(pos, head)                                                                   \
        for (struct list *pos = (head)->next; pos != (head); pos = pos->next)
/* `pos` may be removed from the list inside the body. */
#define list_for_each_safe(pos, tmp, head)                                                         \
        for (struct list *pos = (head)->next, *tmp = pos->next; pos != (head);                     \
             pos = tmp, tmp = pos->next)

#define list_for_each_reverse(pos, head)                                                           \
        for (struct list *pos = (head)->prev; pos != (head); pos = pos->prev)

static inline void list_init(struct list *l)
{
        l->prev = l->next = l;
}

static inline bool list_is_empty(const struct list *head)
{
        return head->next == head;
}

static inline void list_add_tail(struct list *head, struct list *l)
{
        l->prev = head->prev;
        l->next = head;
        head->prev->next = l;
        head->prev = l;
}

static inline void list_add_head(struct list *head, struct list *l)
{
        list_add_tail(head->next, l);
}

/* Leaves `l` linked to itself: removing it again does nothing. */
static inline void list_remove(struct list *l)
{
        l->prev->next = l->next;
        l->next->prev = l->prev;
        list_init(l);
}

/* The first, removed; NULL: there is none. */
static inline struct list *list_take_first(struct list *head)
{
        struct list *l = head->next;

        if (l == head)
                return NULL;
        list_remove(l);
        return l;
}
