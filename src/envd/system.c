/* SPDX-License-Identifier: Apache-2.0 */
/* Clock, entropy and host name of the running kernel. */
#include "envd/system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "envd/tcp.h"
#include "proto/limits.h"

static int set_clock(void *ctx, int64_t real_ns, struct err *e)
{
    const struct timespec ts = {
        .tv_sec = (time_t)(real_ns / 1000000000),
        .tv_nsec = (long)(real_ns % 1000000000),
    };
    if (clock_settime(CLOCK_REALTIME, &ts) < 0)
        return err_sys(e, errno, "clock_settime");
    return 0;
}

/* struct rand_pool_info with its bytes behind it. */
struct entropy {
    int bits;
    int size;
    unsigned char bytes[SYSTEM_ENTROPY_MAX];
};

static int add_entropy(void *ctx, struct slice bytes, struct err *e)
{
    struct entropy seed;
    int rc;
    AUTO_CLOSE int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open /dev/urandom");
    if (bytes.n > sizeof seed.bytes)
        return err_set(e, ERR_INVALID, "more than %zu bytes of entropy", sizeof seed.bytes);
    seed.size = (int)bytes.n;
    seed.bits = seed.size * 8;
    memcpy(seed.bytes, bytes.p, bytes.n);
    rc = ioctl(fd, RNDADDENTROPY, &seed);
    explicit_bzero(&seed, sizeof seed);
    if (rc < 0)
        return err_sys(e, errno, "RNDADDENTROPY");
    if (ioctl(fd, RNDRESEEDCRNG) < 0)
        return err_sys(e, errno, "RNDRESEEDCRNG");
    return 0;
}

static int set_hostname(void *ctx, const char *name, struct err *e)
{
    if (sethostname(name, strlen(name)) < 0)
        return err_sys(e, errno, "sethostname");
    return 0;
}

static void sync_all(void *ctx)
{
    sync();
}

static int drop_connections(void *ctx, struct err *e)
{
    return tcp_destroy_foreign(GUEST_ENVD_PORT, NULL, e);
}

const struct system_ops system_ops_real = {
    .set_clock = set_clock,
    .add_entropy = add_entropy,
    .set_hostname = set_hostname,
    .sync = sync_all,
    .drop_connections = drop_connections,
};
