/* SPDX-License-Identifier: Apache-2.0 */
/* The world of the network tests. Its calls fail the running test when something breaks. */
#include "world.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <linux/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

static int internet_fd = -1;

static int open_current(void)
{
    return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

void world_leave(int home)
{
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    (void)close(home);
}

int world_enter_internet(void)
{
    int home = open_current();
    assert_true(home >= 0);
    assert_int_equal(setns(internet_fd, CLONE_NEWNET), 0);
    return home;
}

int world_enter_path(const char *netns)
{
    struct err e = {0};
    int home = net_netns_enter(netns, &e);
    if (home < 0)
        fail_msg("%s", e.msg);
    return home;
}

/* Addresses of one end of the uplink, in the caller's namespace. */
static int set_up_link(const char *link, const char *ip, struct err *e)
{
    struct in_addr in;
    (void)inet_pton(AF_INET, ip, &in);
    const struct rtnl_addr a = {.link = link, .ip = ntohl(in.s_addr), .prefix_len = 24};
    return rtnl_link_up("lo", e) < 0 || rtnl_link_up(link, e) < 0 || rtnl_addr_add(&a, e) < 0 ? -1
                                                                                              : 0;
}

static int make_internet(struct err *e)
{
    struct in_addr gw;
    int home = open_current();
    if (home < 0 || unshare(CLONE_NEWNET) < 0)
        return err_sys(e, errno, "internet's namespace");
    internet_fd = open_current();
    const struct rtnl_veth v = {.name = "inet0", .peer = "up0", .peer_ns_fd = home};
    int rc = rtnl_veth_add(&v, e);
    if (rc == 0)
        rc = set_up_link("inet0", WORLD_INTERNET_IP, e);
    world_leave(home);
    (void)inet_pton(AF_INET, WORLD_INTERNET_IP, &gw);
    const struct rtnl_route all = {.link = "up0", .gateway = ntohl(gw.s_addr)};
    if (rc < 0 || set_up_link("up0", WORLD_HOST_IP, e) < 0)
        return -1;
    return rtnl_route_add(&all, e);
}

/* One CPU: then packets keep their order, and one that was allowed proves that those before it are
 * through or gone. */
static void stay_on_one_cpu(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)sched_getcpu(), &set);
    (void)sched_setaffinity(0, sizeof set, &set);
}

const char *world_open(void)
{
    static char why[ERR_MSG_MAX + 16];
    struct err e = {0};
    if (geteuid() != 0)
        return "needs root";
    if (access("/dev/net/tun", R_OK | W_OK) < 0)
        return "needs /dev/net/tun";
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
        return "needs network and mount namespaces";
    if (mount("", "/", "none", MS_PRIVATE | MS_REC, NULL) < 0 ||
        mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0)
        return "cannot mount a /run of its own";
    stay_on_one_cpu();
    if (make_internet(&e) < 0) {
        (void)snprintf(why, sizeof why, "no world: %s", e.msg);
        return why;
    }
    return NULL;
}

const char *world_self(void)
{
    static char path[512];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    assert_true(n > 0);
    path[n] = 0;
    return path;
}

struct net_config world_config(unsigned instance, size_t slots, size_t ready)
{
    return (struct net_config){.instance = instance,
        .range = WORLD_RANGE,
        .slots = slots,
        .ready = ready,
        .uid_base = WORLD_UID_BASE,
        .helper = world_self(),
        .resolver = WORLD_INTERNET_IP ":5353"};
}

static int internet_socket(int type, uint16_t port)
{
    const int on = 1;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
    int home = world_enter_internet();
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    world_leave(home);
    return fd;
}

int world_internet_udp(uint16_t port)
{
    return internet_socket(SOCK_DGRAM, port);
}

int world_internet_listen(uint16_t port)
{
    int fd = internet_socket(SOCK_STREAM, port);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

static bool poll_in(int fd, int64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, deadline_poll_ms(deadline)) == 1;
}

void world_wait_readable(int fd)
{
    if (!poll_in(fd, deadline_in_ms(WORLD_WAIT_MS)))
        fail_msg("nothing arrived");
}

bool world_readable(int fd)
{
    return poll_in(fd, deadline_in_ms(0));
}

int world_link_listener(void)
{
    struct sockaddr_nl sa = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

/* The state is "up" once the queue runs; the flags say so earlier. */
static int is_running(const struct nlmsghdr *h, void *arg)
{
    const struct nlattr *a;
    bool named = false;
    bool up = false;
    if (h->nlmsg_type != RTM_NEWLINK)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof(struct ifinfomsg))
    {
        if (mnl_attr_get_type(a) == IFLA_IFNAME)
            named = strcmp(mnl_attr_get_str(a), arg) == 0;
        else if (mnl_attr_get_type(a) == IFLA_OPERSTATE)
            up = mnl_attr_get_u8(a) == IF_OPER_UP;
    }
    return named && up ? MNL_CB_STOP : MNL_CB_OK;
}

void world_wait_running(int listener, const char *link)
{
    _Alignas(NLMSG_ALIGNTO) char message[NL_BUFFER_BYTES];
    int rc = MNL_CB_OK;
    while (rc != MNL_CB_STOP) {
        world_wait_readable(listener);
        ssize_t n = recv(listener, message, sizeof message, 0);
        assert_true(n > 0);
        rc = mnl_cb_run(message, (size_t)n, 0, 0, is_running, (void *)link);
    }
    (void)close(listener);
}

static void append_link(const char *name, void *arg)
{
    buf_printf(arg, "link %s\n", name);
}

static void append_namespaces(struct buf *dst)
{
    const struct dirent *entry;
    DIR *dir = opendir(NET_NETNS_DIR);
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            buf_printf(dst, "netns %s\n", entry->d_name);
    if (dir)
        (void)closedir(dir);
}

/* What a program prints. */
static void append_output(struct buf *dst, const char *path, char *const *argv)
{
    struct err e = {0};
    char chunk[4096];
    int status;
    pid_t pid;
    ssize_t n;
    AUTO_CLOSE int out = memfd_create("output", MFD_CLOEXEC);
    const int fds[] = {-1, out, STDERR_FILENO};
    const struct proc_spawn s = {.path = path, .argv = argv, .fds = fds, .n_fds = 3};
    assert_int_equal(proc_spawn(&s, &pid, &e), 0);
    assert_int_equal(proc_reap(pid, &status, &e), 0);
    assert_int_equal(status, 0);
    for (off_t at = 0; (n = pread(out, chunk, sizeof chunk, at)) > 0; at += n)
        buf_append(dst, chunk, (size_t)n);
}

static void append_file(struct buf *dst, const char *path)
{
    struct err e = {0};
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0)
        fail_msg("%s", e.msg);
    buf_append_slice(dst, buf_slice(&text));
}

void world_snapshot(struct buf *dst)
{
    struct err e = {0};
    char *nft[] = {(char *)"nft", (char *)"list", (char *)"ruleset", NULL};
    assert_int_equal(rtnl_each_link(append_link, dst, &e), 0);
    append_namespaces(dst);
    append_output(dst, "/usr/sbin/nft", nft);
    append_file(dst, "/proc/net/route");
    append_file(dst, "/proc/net/fib_trie");
    append_file(dst, "/proc/sys/net/ipv4/ip_forward");
    append_file(dst, "/proc/sys/net/ipv4/conf/up0/forwarding");
    assert_false(dst->failed);
}

void world_slot_rules(const char *netns, const char *rules)
{
    struct err e = {0};
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    int home = world_enter_path(netns);
    buf_append_cstr(&text, rules);
    if (net_nft_load(&text, &e) < 0)
        fail_msg("%s", e.msg);
    world_leave(home);
}

void world_drop_rule(const char *chain, const char *text)
{
    struct err e = {0};
    AUTO_BUF struct buf list = BUF_INIT(1 << 16);
    AUTO_BUF struct buf command = BUF_INIT(256);
    char *argv[] = {(char *)"nft", (char *)"-a", (char *)"list", (char *)"chain", (char *)"inet",
        (char *)"tp0", (char *)chain, NULL};
    append_output(&list, "/usr/sbin/nft", argv);
    buf_append_char(&list, 0);
    const char *rule = strstr(list.p, text);
    const char *handle = rule ? strstr(rule, "# handle ") : NULL;
    if (!handle)
        fail_msg("no rule \"%s\" in %s", text, chain);
    buf_printf(&command, "delete rule inet tp0 %s handle %lu\n", chain,
        strtoul(handle + strlen("# handle "), NULL, 10));
    if (net_nft_load(&command, &e) < 0)
        fail_msg("%s", e.msg);
}
