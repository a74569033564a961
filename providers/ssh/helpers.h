/* SPDX-License-Identifier: Apache-2.0 */
/* A host's helper shells, and what exec.c keeps of it: made and freed with the host. */
#pragma once

struct ssh_host;

int helpers_init(struct ssh_host *h); /* h->shell, h->execs; 0 or -errno */
void helpers_done(struct ssh_host *h); /* also of one that helpers_init failed for */
