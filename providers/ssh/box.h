/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox's directory on the host, looked at and changed; what box.c, life.c, list.c and remove.c
 * share.
 *
 * What is seen there, the raw word, and what it means:
 *
 *      workspace       the marker is ours                              running
 *      stopped         and `state` says so                             stopped
 *      paused                                                          paused
 *      half            the marker has its other name                   error
 *      foreign         it is another's                                 error
 *      unmarked        a directory without marker, or no directory     error
 *      missing         nothing of that name, the host says             gone
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "providers/ssh/marker.h"
#include "providers/ssh/ssh.h"

enum seen_kind { SEEN_MARKED, SEEN_HALF, SEEN_UNMARKED, SEEN_MISSING };

struct seen {
        enum seen_kind kind;
        struct marker marker; /* of MARKED and HALF */
        char word[16]; /* of `state`; "" none */
};
void seen_done(struct seen *s);

/* Look at BASE/<key>. -errno: it can't be seen now. */
int workspace_look(struct ssh_link *l, struct call *c, const char *base, const char *key,
                   struct seen *ret);

/*
 * The directory of all sandboxes, links resolved; made if `make`. -ENOENT it isn't there; -EPERM
 * everybody can rename in it.
 */
int workspace_base(struct ssh_host *h, struct ssh_link *l, struct call *c, bool make, char **ret);

/* The state, and its raw word, that `state`'s text means. */
enum box_state workspace_state(const char *word, const char **ret_raw);

/**
 * Remove BASE/<key>, whose marker was seen to be right and has its other name: nothing that a link
 * leads to, nothing behind a mount. The marker goes last.
 *
 * Errors: -EBUSY a mount is inside; -errno; what could be removed is gone then.
 */
int workspace_remove(struct ssh_host *h, struct ssh_link *l, struct call *c, const char *base,
                     const char *key);

/* box.c */
int ssh_box_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret);
int ssh_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                   struct box **ret);
void ssh_box_release(struct box *box);
int ssh_box_state(struct box *box, struct call *c, struct box_status *ret);
void box_set_state(struct ssh_box *b, enum box_state state);
/* Whether some box of this program has that key, on any host. */
bool box_is_known(struct ssh_provider *ssh, const char *key);
/* -EPERM unless what was seen is this box's. */
int box_check_owner(struct ssh_box *b, const struct seen *seen, struct call *c);

/* life.c */
int ssh_box_start(struct box *box, struct call *c, const struct spec *spec);
int ssh_box_stop(struct box *box, struct call *c);
int ssh_box_pause(struct box *box, struct call *c);
int ssh_box_resume(struct box *box, struct call *c);
int ssh_box_destroy(struct box *box, struct call *c);

/* list.c */
int ssh_box_list(struct provider *p, struct call *c, struct box_sink *to);
