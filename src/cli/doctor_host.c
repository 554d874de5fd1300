/* SPDX-License-Identifier: Apache-2.0 */
/* The probes for the machine: VMM, memory, disk, files of the installation, limits. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/doctor.h"
#include "cli/output.h"
#include "cli/tool.h"

enum {
    FILE_MAX = 4 << 20,
    FILES_WANTED = 65536, /* some descriptors for each sandbox and each stream */
    MAPS_WANTED = 65530,  /* the kernel's own default */
    PIDS_WANTED = 32768,
    OVERCOMMIT_NEVER = 2,
};
static const int64_t reserve_min_bytes = 2LL << 30;
static const uint64_t uffd_wp_async = 1 << 15; /* of Linux 6.7 */

static const char *const level_names[] = {"ok", "warn", "missing"};
_Static_assert(ARRAY_LEN(level_names) == DOCTOR_LEVEL_COUNT, "a name for each level");

const char *doctor_level_name(enum doctor_level level)
{
    return level_names[level];
}

void doctor_add(struct doctor *d, enum doctor_level level, const char *name, const char *means,
    const char *how, const char *fmt, ...)
{
    struct doctor_item *item = &d->items[d->n_items];
    bool is_ok = level == DOCTOR_OK;
    va_list ap;
    if (d->n_items == DOCTOR_ITEMS_MAX)
        return;
    d->n_items++;
    *item = (struct doctor_item){
        .name = name, .level = level, .means = is_ok ? "" : means, .how = is_ok ? "" : how};
    va_start(ap, fmt);
    (void)vsnprintf(item->what, sizeof item->what, fmt, ap);
    va_end(ap);
}

bool doctor_can_run(const struct doctor *d)
{
    for (size_t i = 0; i < d->n_items; i++)
        if (d->items[i].level == DOCTOR_MISSING)
            return false;
    return true;
}

bool doctor_read(const struct doctor *d, const char *path, struct buf *ret)
{
    char full[PATH_MAX];
    struct err none = {0};
    return snprintf(full, sizeof full, "%s%s", d->root, path) < (int)sizeof full &&
           io_read_file(AT_FDCWD, full, ret, &none) == 0 && ret->p;
}

/* True when `word` stands alone in the text. */
static bool has_word(const char *text, const char *word)
{
    static const char blanks[] = " \t\n";
    size_t n = strlen(word);
    for (const char *p = text; (p = strstr(p, word)); p += n)
        if ((p == text || strchr(blanks, p[-1])) && (!p[n] || strchr(blanks, p[n])))
            return true;
    return false;
}

/* --- VMM --- */

static void probe_cpu(struct doctor *d)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_MAX);
    const char *flag = NULL;
    if (doctor_read(d, "/proc/cpuinfo", &text))
        flag = has_word(text.p, "vmx") ? "vmx" : has_word(text.p, "svm") ? "svm" : NULL;
    d->has_virt = flag != NULL;
    doctor_add(d, flag ? DOCTOR_OK : DOCTOR_WARN, "cpu",
        "guests are emulated (TCG): slow, and no security boundary",
        "a machine with virtualisation switched on, or nested virtualisation in a VM", "%s",
        flag ? flag : "neither vmx nor svm: no hardware virtualisation");
}

static void probe_kvm(struct doctor *d)
{
    int rc = d->ops->open_device("/dev/kvm");
    d->has_kvm = rc == 0 && d->has_virt;
    if (d->has_kvm)
        doctor_add(d, DOCTOR_OK, "kvm", "", "", "/dev/kvm opens, and stock kernels run on it");
    else if (rc == 0)
        doctor_add(d, DOCTOR_WARN, "kvm", "stock kernels do not run on it; TCG is used",
            "a host with vmx or svm",
            "/dev/kvm opens, but the CPU has neither vmx nor svm (a PVM host)");
    else
        doctor_add(d, DOCTOR_WARN, "kvm", "guests are emulated (TCG)",
            "modprobe kvm_intel or kvm_amd; permission to open /dev/kvm", "/dev/kvm: %s",
            strerror(-rc));
}

static void probe_qemu(struct doctor *d)
{
    static const char how[] = "apt-get install qemu-system-x86";
    const char *argv[] = {"qemu-system-x86_64", "--version", NULL};
    AUTO_BUF struct buf text = BUF_INIT(FILE_MAX);
    struct err e = {0};
    if (d->ops->run(argv, &text, &e) < 0 || !text.p)
        doctor_add(d, DOCTOR_MISSING, "qemu", "there is nothing to run VMs with", how, "%s", e.msg);
    else
        doctor_add(d, DOCTOR_OK, "qemu", "", "", "%.*s", (int)strcspn(text.p, "\n"), text.p);
}

static void probe_accel(struct doctor *d)
{
    static const char module[] = "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so";
    char path[PATH_MAX];
    if (d->has_kvm) {
        doctor_add(d, DOCTOR_OK, "accelerator", "", "", "kvm");
        return;
    }
    (void)snprintf(path, sizeof path, "%s%s", d->root, module);
    if (access(path, R_OK) == 0)
        doctor_add(d, DOCTOR_WARN, "accelerator",
            "emulation is not a security boundary: for development only, not for untrusted code",
            "a host with KVM", "tcg (QEMU's emulator)");
    else
        doctor_add(d, DOCTOR_MISSING, "accelerator", "QEMU can run nothing",
            "apt-get install qemu-system-x86", "neither KVM nor %s", module);
}

void doctor_probe_vmm(struct doctor *d)
{
    bool root = d->ops->is_root();
    doctor_add(d, root ? DOCTOR_OK : DOCTOR_WARN, "user",
        "the agent needs root; and some of the following can only be seen by it", "run as root",
        "%s", root ? "root" : "not root");
    probe_cpu(d);
    probe_kvm(d);
    probe_qemu(d);
    probe_accel(d);
}

/* --- memory --- */

static void probe_userfaultfd(struct doctor *d)
{
    uint64_t features = 0;
    int rc = d->ops->userfaultfd(&features);
    int device = d->ops->open_device("/dev/userfaultfd");
    bool wp_async = rc == 0 && features & uffd_wp_async;
    doctor_add(d, rc == 0 ? DOCTOR_OK : DOCTOR_WARN, "userfaultfd",
        "memory of sleeping sandboxes comes back by a private mapping only",
        "a kernel with CONFIG_USERFAULTFD, and root", "%s",
        rc == 0 ? "the system call works" : strerror(-rc));
    doctor_add(d, device == 0 ? DOCTOR_OK : DOCTOR_WARN, "/dev/userfaultfd",
        "a confined VMM cannot make one by itself", "Linux 6.1 or newer", "%s",
        device == 0 ? "opens" : strerror(-device));
    doctor_add(d, wp_async ? DOCTOR_OK : DOCTOR_WARN, "uffd wp-async",
        "with page faults served, written pages are found by comparing them: exact, but slower",
        "Linux 6.7 or newer", "%s", wp_async ? "there" : "not there");
}

void doctor_probe_memory(struct doctor *d)
{
    int scan = d->ops->pagemap_scan();
    int soft = d->ops->soft_dirty();
    probe_userfaultfd(d);
    doctor_add(d, scan == 0 ? DOCTOR_OK : DOCTOR_WARN, "pagemap scan",
        "written pages are found in /proc/PID/pagemap: a little slower", "Linux 6.7 or newer", "%s",
        scan == 0 ? "the ioctl works" : strerror(-scan));
    /* Nothing depends on it. */
    doctor_add(
        d, DOCTOR_OK, "soft-dirty", "", "", "%s (not used)", soft == 0 ? "there" : "not there");
}

/* --- disk --- */

/* The folder itself or the nearest one above that is there. */
static void existing_folder(const char *path, char dst[PATH_MAX])
{
    (void)snprintf(dst, PATH_MAX, "%s", path);
    while (dst[0] && access(dst, F_OK) < 0) {
        char *slash = strrchr(dst, '/');
        if (!slash || slash == dst)
            break;
        *slash = '\0';
    }
    if (!dst[0] || access(dst, F_OK) < 0)
        (void)snprintf(dst, PATH_MAX, "/");
}

static void probe_space(struct doctor *d, const char *dir)
{
    struct doctor_disk disk = {0};
    char free_text[24], reserve_text[24];
    int64_t reserve;
    int rc = d->ops->disk(dir, &disk);
    if (rc < 0) {
        doctor_add(d, DOCTOR_MISSING, "disk space", "the data folder is unusable",
            "set TORPOR_DIR to another folder", "%s: %s", dir, strerror(-rc));
        return;
    }
    reserve = disk.total_bytes / 10 > reserve_min_bytes ? disk.total_bytes / 10 : reserve_min_bytes;
    format_bytes(disk.free_bytes, free_text);
    format_bytes(reserve, reserve_text);
    doctor_add(d, disk.free_bytes > reserve ? DOCTOR_OK : DOCTOR_MISSING, "disk space",
        "creates get no_capacity; what is free is kept for pauses",
        "free some space, or set TORPOR_DIR to a larger disk",
        "%s free in %s, %s of it kept for pauses", free_text, dir, reserve_text);
}

void doctor_probe_disk(struct doctor *d)
{
    char dir[PATH_MAX];
    int dm = d->ops->dm_snapshot();
    int link;
    existing_folder(d->data, dir);
    link = d->ops->reflink(dir);
    probe_space(d, dir);
    doctor_add(d, link == 0 ? DOCTOR_OK : DOCTOR_WARN, "reflinks",
        "flattening a snapshot copies its bytes, in the background", "XFS or btrfs for TORPOR_DIR",
        "%s", link == 0 ? "the data folder's file system shares blocks" : strerror(-link));
    doctor_add(d, dm == 0 ? DOCTOR_OK : DOCTOR_WARN, "device-mapper",
        "disks are qcow2 overlays instead of dm snapshots", "modprobe dm_snapshot, as root", "%s",
        dm == 0         ? "with the snapshot target"
        : dm == -ENOENT ? "without the snapshot target"
                        : strerror(-dm));
}

/* --- limits --- */

static void probe_number(
    struct doctor *d, const char *name, const char *path, int64_t wanted, const char *how)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_MAX);
    int64_t v = doctor_read(d, path, &text) ? strtoll(text.p, NULL, 10) : 0;
    doctor_add(d, v >= wanted ? DOCTOR_OK : DOCTOR_WARN, name,
        "many sandboxes at once will fail on it", how, "%lld", (long long)v);
}

static void probe_cgroup(struct doctor *d)
{
    static const char *const wanted[] = {"cpu", "memory", "pids"};
    AUTO_BUF struct buf text = BUF_INIT(FILE_MAX);
    size_t n = 0;
    if (doctor_read(d, "/sys/fs/cgroup/cgroup.controllers", &text))
        for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
            n += has_word(text.p, wanted[i]);
    if (n == ARRAY_LEN(wanted))
        doctor_add(d, DOCTOR_OK, "cgroup v2", "", "", "cpu, memory, pids");
    else
        doctor_add(d, DOCTOR_WARN, "cgroup v2", "a VMM's share of CPU and memory is not limited",
            "boot with systemd.unified_cgroup_hierarchy=1", "%s",
            text.p ? "controllers are missing" : "not mounted at /sys/fs/cgroup");
}

void doctor_probe_limits(struct doctor *d)
{
    int64_t files = d->ops->max_files();
    AUTO_BUF struct buf text = BUF_INIT(FILE_MAX);
    bool never = doctor_read(d, "/proc/sys/vm/overcommit_memory", &text) &&
                 strtol(text.p, NULL, 10) == OVERCOMMIT_NEVER;
    probe_cgroup(d);
    doctor_add(d, files >= FILES_WANTED ? DOCTOR_OK : DOCTOR_WARN, "open files",
        "many sandboxes or streams at once will fail on it",
        "ulimit -Hn 1048576, or LimitNOFILE=", "at most %lld", (long long)files);
    probe_number(d, "max_map_count", "/proc/sys/vm/max_map_count", MAPS_WANTED,
        "sysctl vm.max_map_count=262144");
    probe_number(
        d, "pid_max", "/proc/sys/kernel/pid_max", PIDS_WANTED, "sysctl kernel.pid_max=4194304");
    doctor_add(d, never ? DOCTOR_WARN : DOCTOR_OK, "overcommit",
        "memory of guests is lazy; here all of it must be there in advance",
        "sysctl vm.overcommit_memory=0", "%s", never ? "never (2)" : "allowed");
}

/* --- what the installation needs --- */

static void probe_file(struct doctor *d, const char *name, const char *file, const char *how)
{
    char path[PATH_MAX + 64];
    bool there;
    (void)snprintf(path, sizeof path, "%s/%s", d->data, file);
    there = access(path, R_OK) == 0;
    doctor_add(d, there ? DOCTOR_OK : DOCTOR_MISSING, name, "no sandbox can be booted", how, "%s%s",
        path, there ? "" : " is not there");
}

void doctor_probe_files(struct doctor *d)
{
    probe_file(d, "guest kernel", "kernels/current/vmlinux", "make up (images/kernel.sh)");
    probe_file(d, "template minimal", "images/minimal/manifest.json",
        "make up, or torpor template build minimal");
}
