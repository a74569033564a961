/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging in: the agent's keys, key files, a password, and a password as the answer to questions.
 * Only after the host key was checked.
 */
#pragma once

struct call;
struct sock;
struct ssh_target;

/**
 * Log in with what the target has and the server takes.
 *
 * Shape:  named identities come before the agent's, the usual ones of ~/.ssh after them; RSA keys
 *         last where libssh2 can't make the signatures that servers want.
 * Errors: -EACCES nothing was accepted; -EHOSTUNREACH the server hung up; -ETIMEDOUT, -EINTR;
 *         -ENOMEM. With their sentence.
 */
int auth_login(struct sock *k, const struct ssh_target *target, struct call *c);
