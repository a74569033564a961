/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share of a sandbox. */
#pragma once

#include "providers/docker/docker.h"
#include "transport/base/buf.h"

struct json;

/* ---- box.c ---- */

int docker_box_create(struct provider *p, struct call *c, const struct spec *spec,
                      struct box **ret);
int docker_box_list(struct provider *p, struct call *c, struct box_sink *to);
int docker_box_state(struct box *box, struct call *c, struct box_status *ret);
int docker_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                      struct box **ret);
void docker_box_release(struct box *box);
/*
 * What the engine says of it now; b->state follows, unless a change of ours is at work. -ENODEV it
 * isn't there (positively).
 */
int box_inspect(struct docker_box *b, struct call *c, struct box_status *ret);
/* "/containers/ID" and `rest`. */
int box_path(const struct docker_box *b, struct buf *to, const char *rest);
/* 404 of a request for it: -ENODEV where the engine itself says so, else `r`. */
int box_missing(struct docker_box *b, struct call *c, int r, unsigned status);

/* ---- life.c ---- */

int docker_box_start(struct box *box, struct call *c, const struct spec *spec);
int docker_box_stop(struct box *box, struct call *c);
int docker_box_pause(struct box *box, struct call *c);
int docker_box_resume(struct box *box, struct call *c);
int docker_box_destroy(struct box *box, struct call *c);
/* One more time, for a container that was made just now. */
int life_start(struct docker_box *b, struct call *c);
/* Of what was made in vain; bounded, its failure is nobody's. */
void life_discard(struct docker_box *b);

/* ---- put.c ---- */

/*
 * Put our program into the container, running or not, as `dir`/init (an absolute path right below
 * the root; made). -EROFS its root is read-only.
 */
int put_init(struct docker_box *b, struct call *c, const char *dir);

/* ---- program.c ---- */

/* docker_open_program in full: on which endpoint, and where it starts; NULL: "/". */
struct http;
int program_open(struct docker_box *b, struct http *on, struct call *c, const char *const *argv,
                 const char *user, const char *workdir, const struct stream_events *events,
                 struct stream **ret);
/* The process of an open one, as the engine says: -EOPNOTSUPP it doesn't; -EINTR. */
int program_pid(struct docker_box *b, struct call *c, struct stream *s, pid_t *ret);
/* Without streams: started, and left alone. */
int program_launch(struct docker_box *b, struct call *c, const char *const *argv, const char *user);

/* ---- events.c ---- */

/* The thread that listens; ends soon after d->is_closing. */
void *events_run(void *docker);
