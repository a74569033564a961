/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/unit/check.h"
#include "transport/base/list.h"

struct item {
        int number;
        struct list link;
};

static int sum_in_order(struct list *head)
{
        int n = 0;

        for (struct list *l = head->next; l != head; l = l->next)
                n = n * 10 + list_entry(l, struct item, link)->number;
        return n;
}

static void members_stand_in_order(void)
{
        struct list head;
        struct item one = {.number = 1}, two = {.number = 2}, three = {.number = 3};

        list_init(&head);
        CHECK(list_is_empty(&head));
        list_add_tail(&head, &two.link);
        list_add_tail(&head, &three.link);
        list_add_head(&head, &one.link);
        CHECK_EQ(sum_in_order(&head), 123);
        list_remove(&two.link);
        list_remove(&two.link); /* does nothing */
        CHECK_EQ(sum_in_order(&head), 13);
        CHECK(list_is_empty(&two.link));
}

static void members_may_go_while_walking(void)
{
        struct list head = LIST_INIT(head);
        struct item items[5];
        int seen = 0;

        for (int i = 0; i < 5; i++) {
                items[i].number = i;
                list_add_tail(&head, &items[i].link);
        }
        list_for_each_safe (at, next, &head) {
                seen++;
                if (list_entry(at, struct item, link)->number % 2 == 0)
                        list_remove(at);
        }
        CHECK_EQ(seen, 5);
        CHECK_EQ(sum_in_order(&head), 13);
        seen = 0;
        list_for_each (at, &head)
                seen++;
        CHECK_EQ(seen, 2);
}

int main(void)
{
        RUN(members_stand_in_order);
        RUN(members_may_go_while_walking);
        return check_result();
}
