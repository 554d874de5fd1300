/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts the control plane together, bottom up: folder, store, first key, agent client, service, API;
 * and takes it apart the other way round.
 */
#include "control/control.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/sock.h"
#include "control/agent_client/agent_client.h"
#include "control/api/api.h"
#include "control/service/service.h"

enum { AGENT_SOCKET_MAX = 108 }; /* what a unix socket's address holds */

struct control {
    int dirfd;
    int lock_fd;
    struct store *store;
    struct agent *agent;
    struct service *service;
    struct api *api;
    char agent_socket[AGENT_SOCKET_MAX];
    char ipv4[CONTROL_IPV4_MAX];
    uint16_t port;
};

/* Transitions are kept apart by locks in memory, so one process has the folder. */
static int lock_dir(struct control *c, struct err *e)
{
    c->lock_fd = openat(c->dirfd, "control.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (c->lock_fd < 0)
        return err_sys(e, errno, "open control.lock");
    if (flock(c->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? err_set(e, ERR_EXISTS, "another torpor-control uses this folder")
                   : err_sys(e, errno, "lock control.lock");
    return 0;
}

static int open_dir(struct control *c, const char *dir, struct err *e)
{
    if (io_mkdir_p(dir, 0700, e) < 0)
        return -1;
    c->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->dirfd < 0)
        return err_sys(e, errno, "open folder");
    return lock_dir(c, e);
}

static int open_store(struct control *c, const char *dir, struct err *e)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/control.db", dir) >= (int)sizeof path)
        return err_set(e, ERR_INVALID, "the path is too long");
    if (sqlite_store_open(path, &c->store, e) < 0)
        return -1;
    return service_bootstrap(c->store, c->dirfd, e);
}

static int open_service(struct control *c, const struct control_config *config, struct err *e)
{
    struct service_config s = {
        .agent_address = c->agent_socket,
        .poll_ms = config->poll_ms,
        .gap_ms = config->gap_ms,
        .full_every_ms = config->full_every_ms,
        .lock_wait_ms = config->lock_wait_ms,
    };
    if (!slice_copy_cstr(slice_cstr(config->agent_socket), c->agent_socket, sizeof c->agent_socket))
        return err_set(e, ERR_INVALID, "the path of the agent's socket is too long");
    if (agent_client_new(c->agent_socket, &c->agent, e) < 0)
        return -1;
    s.store = c->store;
    s.agent = c->agent;
    return service_open(&s, &c->service, e);
}

static int open_api(struct control *c, const struct control_config *config, struct err *e)
{
    int fd = sock_listen_tcp(config->listen_ipv4, config->listen_port, e);
    if (fd < 0)
        return err_wrap(e, "listen on %s:%u", config->listen_ipv4, config->listen_port);
    memcpy(c->ipv4, config->listen_ipv4, sizeof c->ipv4);
    c->port = sock_local_port(fd);
    return api_start(fd, c->service, &c->api, e);
}

static int start_parts(struct control *c, const struct control_config *config, struct err *e)
{
    if (open_dir(c, config->dir, e) < 0 || open_store(c, config->dir, e) < 0)
        return err_wrap(e, "data folder %s", config->dir);
    if (open_service(c, config, e) < 0)
        return -1;
    return open_api(c, config, e);
}

int control_start(const struct control_config *config, struct control **ret, struct err *e)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    c->dirfd = -1;
    c->lock_fd = -1;
    if (start_parts(c, config, e) < 0) {
        (void)control_stop(c);
        return -1;
    }
    *ret = c;
    return 0;
}

struct control *control_stop(struct control *c)
{
    if (!c)
        return NULL;
    c->api = api_stop(c->api);
    c->service = service_close(c->service);
    c->agent = agent_client_free(c->agent);
    c->store = store_close(c->store);
    cleanup_close_(&c->lock_fd);
    cleanup_close_(&c->dirfd);
    free(c);
    return NULL;
}

void control_url(const struct control *c, char dst[CONTROL_URL_MAX])
{
    const char *host = strcmp(c->ipv4, "0.0.0.0") == 0 ? "127.0.0.1" : c->ipv4;
    (void)snprintf(dst, CONTROL_URL_MAX, "http://%s:%u", host, c->port);
}
