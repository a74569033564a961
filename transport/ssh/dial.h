/* SPDX-License-Identifier: Apache-2.0 */
/* The way to a server: a TCP connection, or a program that is one (ProxyCommand). */
#pragma once

struct call;

#define DIAL_LIMIT_S 3 /* for one address to answer */

/**
 * Connect to a name's addresses: the next is tried while one keeps us waiting; the first that
 * answers is taken.
 *
 * Owner:  *ret to close; non-blocking, TCP_NODELAY.
 * Errors: -EHOSTUNREACH no such name, no route, refused, or silent for DIAL_LIMIT_S; -ETIMEDOUT,
 *         -EINTR by the call. With their sentence.
 */
int dial_host(const char *host, unsigned port, struct call *c, int *ret);

struct dial_proxy {
        int fd; /* its standard input and output */
        int log_fd; /* its standard error; non-blocking */
        int pidfd; /* -1: there is none */
        int pid;
};

/* Start it, with that environment (NULL: none), in a session of its own. -errno, with a sentence. */
int dial_proxy(const char *const *argv, const char *const *envp, struct call *c,
               struct dial_proxy *ret);
/* End the program and what it has started; the descriptors are the caller's. At most 100 ms. */
void dial_proxy_end(struct dial_proxy *p);

struct addrinfo;

/* getaddrinfo for a TCP port, by the call's deadline; *ret to freeaddrinfo. Errors as dial_host. */
int dial_resolve(const char *host, unsigned port, struct call *c, struct addrinfo **ret);
