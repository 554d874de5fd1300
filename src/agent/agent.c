/* SPDX-License-Identifier: Apache-2.0 */
/* Settings, start and stop of the agent. */
#include "agent/agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/life/crash.h"
#include "agent/life/life.h"
#include "agent/net/net.h"
#include "agent/rpc.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

enum {
    SLOTS_DEFAULT = 256,
    UID_BASE_DEFAULT = 0x70000000, /* far above what distributions and containers hand out */
    MEMORY_MB_MAX = 1 << 30,
    READY_TIMEOUT_MS = 5000,
};

struct agent {
    struct life *life;
    struct agent_rpc *rpc;
    char self[PATH_MAX];
    char shim[PATH_MAX];
    char library[PATH_MAX];
    char socket[PATH_MAX];
};

static const char *setting(const char *name, const char *fallback)
{
    const char *v = getenv(name);
    return v && v[0] ? v : fallback;
}

static int setting_number(
    const char *name, uint64_t fallback, uint64_t min, uint64_t max, uint64_t *ret, struct err *e)
{
    const char *v = setting(name, NULL);
    uint64_t n = fallback;
    if (v && (!slice_parse_u64(slice_cstr(v), &n) || n < min || n > max))
        return err_field(e, name, "%s=%s: must be a number between %llu and %llu", name, v,
            (unsigned long long)min, (unsigned long long)max);
    *ret = n;
    return 0;
}

static int check_accel(const char *v, struct err *e)
{
    if (strcmp(v, "auto") == 0 || strcmp(v, "kvm") == 0 || strcmp(v, "tcg") == 0)
        return 0;
    return err_field(e, "TORPOR_ACCEL", "TORPOR_ACCEL=%s: must be auto, kvm or tcg", v);
}

/* This program and, beside it, the shim. */
static int find_programs(struct agent *a, struct err *e)
{
    const char *shim = setting("TORPOR_SHIM", NULL);
    const char *library;
    ssize_t n = readlink("/proc/self/exe", a->self, sizeof a->self - 1);
    char *slash;
    if (n < 0)
        return err_sys(e, errno, "/proc/self/exe");
    a->self[n] = '\0';
    if (shim) {
        (void)snprintf(a->shim, sizeof a->shim, "%s", shim);
    } else {
        slash = strrchr(a->self, '/');
        if (snprintf(a->shim, sizeof a->shim, "%.*s/torpor-shim", (int)(slash - a->self),
                a->self) >= (int)sizeof a->shim)
            return err_set(e, ERR_INVALID, "path too long");
    }
    if (access(a->shim, X_OK) < 0)
        return err_sys(e, errno, "TORPOR_SHIM=%s", a->shim);
    library = setting("TORPOR_MEMORY_LIBRARY", NULL);
    slash = strrchr(a->shim, '/');
    if (library)
        (void)snprintf(a->library, sizeof a->library, "%s", library);
    else if (!slash || snprintf(a->library, sizeof a->library, "%.*s/torpor-memory.so",
                           (int)(slash - a->shim), a->shim) >= (int)sizeof a->library)
        return err_set(e, ERR_INVALID, "path too long");
    if (access(a->library, R_OK) < 0)
        return err_sys(e, errno, "TORPOR_MEMORY_LIBRARY=%s", a->library);
    return 0;
}

static int read_memory(enum life_memory *ret, struct err *e)
{
    const char *v = setting("TORPOR_MEMORY", "auto");
    if (strcmp(v, "auto") == 0)
        *ret = LIFE_MEMORY_AUTO;
    else if (strcmp(v, "file") == 0)
        *ret = LIFE_MEMORY_FILE;
    else if (strcmp(v, "uffd") == 0)
        *ret = LIFE_MEMORY_UFFD;
    else
        return err_field(e, "TORPOR_MEMORY", "TORPOR_MEMORY=%s: must be auto, file or uffd", v);
    return 0;
}

static int read_warm(bool *ret_no_warm, struct err *e)
{
    const char *v = setting("TORPOR_WARM", "on");
    if (strcmp(v, "on") != 0 && strcmp(v, "off") != 0)
        return err_field(e, "TORPOR_WARM", "TORPOR_WARM=%s: must be on or off", v);
    *ret_no_warm = strcmp(v, "off") == 0;
    return 0;
}

static int read_settings(const struct agent *a, struct life_config *c, struct err *e)
{
    uint64_t slots;
    uint64_t memory_mb;
    uint64_t uid_base;
    uint64_t vcpus_per_core;
    *c = (struct life_config){.dir = setting("TORPOR_DIR", NULL),
        .run_base = setting("TORPOR_RUN_BASE", "/run/torpor"),
        .shim = a->shim,
        .self = a->self,
        .library = a->library,
        .try_memory = true,
        .accel = setting("TORPOR_ACCEL", "auto"),
        .net_range = setting("TORPOR_NET", "10.11.0.0/16"),
        .resolver = setting("TORPOR_RESOLVER", NULL)};
    if (!c->dir)
        return err_field(e, "TORPOR_DIR", "TORPOR_DIR is not set: the data folder");
    if (check_accel(c->accel, e) < 0 || read_memory(&c->memory, e) < 0 ||
        read_warm(&c->no_warm, e) < 0 ||
        setting_number("TORPOR_SLOTS", SLOTS_DEFAULT, 1, NET_SLOTS_MAX, &slots, e) < 0 ||
        setting_number("TORPOR_MEMORY_MB", 0, 0, MEMORY_MB_MAX, &memory_mb, e) < 0 ||
        setting_number("TORPOR_VCPUS_PER_CORE", 0, 1, 1024, &vcpus_per_core, e) < 0 ||
        setting_number("TORPOR_UID_BASE", UID_BASE_DEFAULT, 1000, INT_MAX, &uid_base, e) < 0)
        return -1;
    c->slots = (size_t)slots;
    c->memory_mb = (int64_t)memory_mb;
    c->vcpus_per_core = (int32_t)vcpus_per_core;
    c->uid_base = (uid_t)uid_base;
    return 0;
}

static int serve(struct agent *a, struct err *e)
{
    const char *path = setting("TORPOR_AGENT_SOCKET", NULL);
    uint64_t control_uid;
    if (setting_number("TORPOR_CONTROL_UID", 0, 0, UINT32_MAX - 1, &control_uid, e) < 0)
        return -1;
    if (path)
        (void)snprintf(a->socket, sizeof a->socket, "%s", path);
    else
        (void)snprintf(a->socket, sizeof a->socket, "%s/agent.sock", life_run_dir(a->life));
    a->rpc = agent_rpc_start(a->life, a->socket, (uid_t)control_uid, e);
    return a->rpc ? 0 : -1;
}

static int say_ready(const struct agent *a, int fd, struct err *e)
{
    char line[PATH_MAX + 64];
    int n = snprintf(
        line, sizeof line, "ready instance=%u socket=%s\n", life_instance(a->life), a->socket);
    int rc = fd < 0 ? 0 : io_write_full(fd, line, (size_t)n, deadline_in_ms(READY_TIMEOUT_MS), e);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

static int open_host(struct agent *a, bool only_stop, struct err *e)
{
    struct life_config config;
    if (find_programs(a, e) < 0 || read_settings(a, &config, e) < 0)
        return -1;
    config.only_stop = only_stop;
    crash_init();
    a->life = life_open(&config, e);
    return a->life ? 0 : -1;
}

struct agent *agent_start(int ready_fd, struct err *e)
{
    struct agent *a = calloc(1, sizeof *a);
    struct err ignored = {0};
    if (!a) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (open_host(a, /* only_stop= */ false, e) == 0 && serve(a, e) == 0 &&
        say_ready(a, ready_fd, e) == 0)
        return a;
    (void)agent_stop(a, &ignored);
    return NULL;
}

int agent_stop(struct agent *a, struct err *e)
{
    int rc = 0;
    if (a->life)
        life_wake(a->life);
    agent_rpc_stop(a->rpc);
    if (a->life)
        rc = life_leave(a->life, e);
    free(a);
    return rc;
}

/* Of an agent that was killed; while one lives, open_host has failed. */
static void remove_stale_socket(const struct agent *a)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/agent.sock", life_run_dir(a->life));
    (void)unlink(path);
}

/* Opens the data folder without serving it, and ends it with `end`. */
static int open_and_end(int (*end)(struct life *l, struct err *e), struct err *e)
{
    struct agent *a = calloc(1, sizeof *a);
    int rc;
    if (!a)
        return err_set(e, ERR_NOMEM, "out of memory");
    rc = open_host(a, /* only_stop= */ true, e);
    if (rc == 0) {
        remove_stale_socket(a);
        rc = end(a->life, e);
    }
    free(a);
    return rc;
}

int agent_stop_all(struct err *e)
{
    return open_and_end(life_close, e);
}

int agent_drain(struct err *e)
{
    return open_and_end(life_drain, e);
}
