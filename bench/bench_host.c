/* SPDX-License-Identifier: Apache-2.0 */
/* What a sandbox costs: the guest agent's size, processes forked, and that VMMs are confined. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "bench.h"

static void guest_resident(const struct stack *s, const char *id)
{
    struct reply r = {0};
    long kib;
    exec_in(s, id,
        "{\"cmd\":\"sed\",\"args\":[\"-n\",\"s/^VmRSS:[^0-9]*\\\\([0-9]*\\\\).*/\\\\1/p\","
        "\"/proc/1/status\"]}",
        &r);
    kib = strtol(reply_text(&r, "stdout"), NULL, 10);
    report_value(
        "torpor-envd resident when idle", (double)kib, "KiB", "<= 1024", kib > 0 && kib <= 1024);
    reply_done(&r);
}

/* A line "Key: value" of /proc/PID/status holds `value`. */
static bool status_is(pid_t pid, const char *key, const char *value)
{
    char path[64];
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    struct err e = {0};
    const char *p;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    if (io_read_file(-100, path, &text, &e) < 0 || !(p = strstr(text.p, key)))
        return false;
    p += strlen(key);
    p += strspn(p, ":\t ");
    return strncmp(p, value, strlen(value)) == 0;
}

static void vmm_confined(const char *id)
{
    pid_t pid = find_vmm(id);
    bool all = status_is(pid, "CapEff", "0000000000000000") &&
               status_is(pid, "CapPrm", "0000000000000000") &&
               status_is(pid, "CapBnd", "0000000000000000") && status_is(pid, "Seccomp", "2") &&
               status_is(pid, "NoNewPrivs", "1") && !status_is(pid, "Uid", "0\t");
    report_value("VMM processes with their own uid, no capabilities, seccomp", all ? 1 : 0, "of 1",
        "all", all);
}

void bench_guest(const struct stack *s)
{
    char id[32];
    struct stat st;
    if (stat(ENVD_PROGRAM, &st) == 0)
        report_value("torpor-envd on disk", (double)st.st_size / 1024, "KiB", "<= 512",
            st.st_size <= 512 * 1024);
    else
        report_unmeasured("torpor-envd on disk", "not built: make guest");
    create_sandbox(s, "{}", id);
    guest_resident(s, id);
    vmm_confined(id);
    delete_sandbox(s, id);
}

/* The kernel's report of every fork (needs CONFIG_PROC_EVENTS). -1 with errno. */
static int events_open(void)
{
    struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
    const enum proc_cn_mcast_op op = PROC_CN_MCAST_LISTEN;
    const struct cn_msg cn = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof op};
    char m[NLMSG_HDRLEN + sizeof cn + sizeof op] = {0};
    const struct nlmsghdr nl = {.nlmsg_len = sizeof m, .nlmsg_type = NLMSG_DONE};
    AUTO_CLOSE int fd =
        socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR);
    int size = 4 << 20;
    memcpy(m, &nl, sizeof nl);
    memcpy(m + NLMSG_HDRLEN, &cn, sizeof cn);
    memcpy(m + NLMSG_HDRLEN + sizeof cn, &op, sizeof op);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 ||
        send(fd, m, sizeof m, 0) < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    return TAKE_FD(fd);
}

/* Counts new processes (not threads) that descend from ours. */
static int count_forks(int fd, pid_t *ours, size_t n_ours, size_t max)
{
    char buf[4096] __attribute__((aligned(NLMSG_ALIGNTO)));
    int forks = 0;
    ssize_t n;
    while ((n = recv(fd, buf, sizeof buf, 0)) > 0) {
        struct proc_event ev;
        if ((size_t)n < NLMSG_HDRLEN + sizeof(struct cn_msg) + sizeof ev)
            continue;
        memcpy(&ev, buf + NLMSG_HDRLEN + sizeof(struct cn_msg), sizeof ev);
        if (ev.what != PROC_EVENT_FORK ||
            ev.event_data.fork.child_pid != ev.event_data.fork.child_tgid)
            continue;
        for (size_t i = 0; i < n_ours; i++)
            if (ev.event_data.fork.parent_tgid == ours[i]) {
                forks++;
                if (n_ours < max)
                    ours[n_ours++] = ev.event_data.fork.child_tgid;
                break;
            }
    }
    return forks;
}

void bench_forks(const struct stack *s)
{
    const char *name = "processes forked per create besides shim and VMM";
    pid_t ours[64] = {s->agent, s->control};
    char id[32];
    int forks;
    AUTO_CLOSE int fd = events_open();
    if (fd < 0) {
        report_unmeasured(name, strerror(errno));
        return;
    }
    create_sandbox(s, "{}", id);
    forks = count_forks(fd, ours, 2, ARRAY_LEN(ours));
    delete_sandbox(s, id);
    if (forks < 2)
        report_unmeasured(name, "the kernel reported not even shim and VMM");
    else
        report_value(name, forks - 2, "", "0", forks == 2);
}
