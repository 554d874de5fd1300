/* SPDX-License-Identifier: Apache-2.0 */
/* Raw boots. */
#include "by_hand.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/guest/guest.h"
#include "agent/life/templates.h"
#include "agent/vmm/files.h"
#include "agent/vmm/qemu_args.h"
#include "agent/vmm/vmm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "proto/limits.h"

#define NETNS "torpor-bench"
enum { BOOT_MS = 60000 };

static void die(const char *what, const struct err *e)
{
    (void)fprintf(stderr, "bench: %s: %s\n", what, e->msg);
    exit(1);
}

static void run(const char *const *argv)
{
    struct err e = {0};
    pid_t pid;
    int status;
    if (proc_spawn(&(struct proc_spawn){.path = argv[0],
                       .argv = (char *const *)(uintptr_t)argv,
                       .fds = (const int[]){-1, 1, 2},
                       .n_fds = 3},
            &pid, &e) < 0 ||
        proc_reap(pid, &status, &e) < 0)
        die(argv[0], &e);
}

#define IP(...) run((const char *const[]){"/usr/sbin/ip", __VA_ARGS__, NULL})

void by_hand_init(void)
{
    IP("netns", "add", NETNS);
    IP("-n", NETNS, "tuntap", "add", "dev", GUEST_TAP, "mode", "tap");
    IP("-n", NETNS, "link", "set", GUEST_TAP, "address", GUEST_HOST_MAC);
    IP("-n", NETNS, "addr", "add", GUEST_GATEWAY "/30", "dev", GUEST_TAP);
    IP("-n", NETNS, "link", "set", GUEST_TAP, "up");
    IP("-n", NETNS, "neigh", "add", GUEST_ADDRESS, "lladdr", GUEST_MAC, "dev", GUEST_TAP);
}

void by_hand_done(void)
{
    IP("netns", "del", NETNS);
}

static void enter_netns(void)
{
    AUTO_CLOSE int fd = open("/run/netns/" NETNS, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) {
        perror("bench: " NETNS);
        exit(1);
    }
}

/* In a child inside the namespace. */
static int64_t boot_and_time(const struct qemu_args *args, struct err *e)
{
    char token[GUEST_TOKEN_CHARS + 1] = "";
    struct guest *g = guest_new(GUEST_ADDRESS, token);
    struct proc_id id;
    int64_t began = clock_mono_us();
    int64_t took = -1;
    int log = open("/dev/null", O_WRONLY | O_CLOEXEC);
    AUTO_CLOSE int pidfd = -1;
    pid_t pid;
    int status;
    if (proc_spawn(&(struct proc_spawn){.path = args->argv[0],
                       .argv = (char *const *)(uintptr_t)args->argv,
                       .fds = (const int[]){-1, log, log},
                       .n_fds = 3},
            &pid, e) < 0)
        return -1;
    if (proc_identify(pid, &id, e) == 0 && (pidfd = proc_open(&id, e)) >= 0 &&
        guest_wait_ready(g, pidfd, deadline_in_ms(BOOT_MS), e) == 0)
        took = clock_mono_us() - began;
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &status, 0);
    (void)guest_free(g);
    return took;
}

const struct by_hand_parts *by_hand_parts(const struct stack *s)
{
    static struct by_hand_parts parts;
    static struct vmm_host probed;
    static struct host host;
    static struct host_template template;
    static struct host_kernel kernel;
    struct err e = {0};
    if (parts.image)
        return &parts;
    host.dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)snprintf(host.dir, sizeof host.dir, "%s", s->dir);
    if (vmm_host_probe("auto", &probed, &e) < 0 ||
        host_template_find(&host, SLICE_LIT("minimal"), &template, &e) < 0 ||
        host_kernel_find(&host, &kernel, &e) < 0)
        die("prepare", &e);
    (void)close(host.dir_fd);
    parts.facts = (struct qemu_facts){.id = "by-hand",
        .program = probed.qemu,
        .bios = probed.files->bios,
        .kernel = kernel.vmlinux,
        .initrd = kernel.initrd,
        .use_kvm = probed.use_kvm,
        .tsc_khz = probed.tsc_khz};
    parts.image = template.image;
    parts.disk_bytes = template.size_bytes;
    parts.files = probed.files;
    return &parts;
}

static void make_overlay(const struct stack *s, uint64_t disk_bytes, char *path, size_t n)
{
    struct err e = {0};
    AUTO_CLOSE int fd = open(s->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)snprintf(path, n, "%s/by-hand.qcow2", s->root);
    if (disk_overlay_remove(fd, "by-hand.qcow2", &e) < 0 ||
        disk_overlay_create(fd, "by-hand.qcow2", disk_bytes, 0, &e) < 0)
        die("overlay", &e);
}

static void child(const struct qemu_args *args, int result)
{
    struct err e = {0};
    int64_t took;
    enter_netns();
    took = boot_and_time(args, &e);
    if (took < 0)
        die("boot by hand", &e);
    if (write(result, &took, sizeof took) != sizeof took)
        exit(1);
    exit(0);
}

int64_t by_hand_boot(const struct stack *s, uint32_t vcpus, uint32_t memory_mb)
{
    const struct by_hand_parts *parts = by_hand_parts(s);
    struct qemu_facts facts = parts->facts;
    char overlay[160];
    struct qemu_by_hand hand = {.overlay = overlay, .base = parts->image, .tap = GUEST_TAP};
    struct qemu_args args;
    struct err e = {0};
    int result[2];
    int64_t took = -1;
    pid_t pid;
    int status;
    make_overlay(s, parts->disk_bytes, overlay, sizeof overlay);
    facts.vcpus = vcpus;
    facts.memory_mb = memory_mb;
    facts.by_hand = &hand;
    if (qemu_args_build(&facts, &args, &e) < 0 || pipe2(result, O_CLOEXEC) < 0)
        die("arguments", &e);
    pid = fork();
    if (pid == 0)
        child(&args, result[1]);
    (void)close(result[1]);
    if (read(result[0], &took, sizeof took) != sizeof took)
        took = -1;
    (void)close(result[0]);
    (void)waitpid(pid, &status, 0);
    qemu_args_done(&args);
    if (took < 0)
        exit(1);
    return took;
}
