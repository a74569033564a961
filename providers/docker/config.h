/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the engine is: an INI section's keys, else the variables that the docker client reads, else
 * the usual sockets.
 *
 *      host = unix:///run/docker.sock     or tcp://HOST:PORT, https://HOST:PORT (DOCKER_HOST)
 *      tls = on | off                     of tcp; off unless DOCKER_TLS_VERIFY is set
 *      cert_path = DIR                    ca.pem, cert.pem, key.pem (DOCKER_CERT_PATH, ~/.docker)
 *      plain = HOST                       the machine that may be spoken to without TLS
 *      files = agent | stream | shell     how fs/ is served: by a program of ours in the container,
 *                                         over a socket of its own where the engine is on this
 *                                         machine and we may, or always through the engine; or
 *                                         without one, by its shell and tools (inside/files.c)
 */
#pragma once

#include <stdbool.h>

#include "providers/provider.h"

/* What is absent is NULL. */
struct docker_config {
        char *socket_path;
        char *url; /* without socket_path */
        char *plain_host;
        char *ca_file, *cert_file, *key_file;
        bool is_from_env; /* the address is DOCKER_HOST's, which may be meant for others */
        bool has_no_agent; /* files = shell */
        bool has_no_direct; /* files = stream */
};

extern const char *const docker_config_keys[];

/*
 * Looks at files, not at the network. -EINVAL, -ENOENT a certificate that isn't there, -ENOMEM;
 * -EHOSTUNREACH it is DOCKER_HOST that is of no use, which is no mistake of the section's.
 */
int docker_config_read(const struct pair *pairs, size_t count, struct call *c,
                       struct docker_config *ret);
void docker_config_done(struct docker_config *d);

/* Whether an engine is there without configuration: DOCKER_HOST, or a usual socket. */
bool docker_is_there(void);
