/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tiny guest is an ELF file of one segment with a PVH note: a few bytes of 32-bit code at 1
 * MiB, which QEMU's firmware jumps to some 30 ms after exec.
 */
#include "vm_fixture.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "agent/disk/disk.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "proto/limits.h"

enum { LOAD_ADDRESS = 0x100000, CODE_MAX = 64, PVH_NOTE = 18 /* XEN_ELFNOTE_PHYS32_ENTRY */ };

struct tiny_kernel {
    Elf64_Ehdr head;
    Elf64_Phdr load;
    Elf64_Phdr note;
    struct {
        Elf64_Nhdr head;
        char name[4];
        uint64_t entry;
    } __attribute__((packed)) pvh;
    uint32_t align;
    uint8_t code[CODE_MAX];
};

static const uint8_t hello_code[] = {
    0x66, 0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
    0xb0, 'h', 0xee,        /* mov al, c; out dx, al */
    0xb0, 'i', 0xee,        /* */
    0xb0, '\n', 0xee,       /* */
    0xfa, 0xf4, 0xeb, 0xfd, /* cli; again: hlt; jmp again */
};
static const uint8_t chatty_code[] = {
    0x66, 0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
    0xb0, 'A',              /* mov al, 'A' */
    0xee, 0xeb, 0xfd,       /* again: out dx, al; jmp again */
};
/* An interrupt without a table: triple fault, which a machine answers with a reset. */
static const uint8_t reset_code[] = {
    0x0f, 0x01, 0x1d, 0x20, 0x00, 0x10, 0x00, /* lidt [0x100020], zeros */
    0xcc,                                     /* int3 */
};

static int write_file(int dirfd, const char *name, const void *src, size_t n, off_t size)
{
    AUTO_CLOSE int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, src, n) != (ssize_t)n)
        return -1;
    return size > 0 ? ftruncate(fd, size) : 0;
}

static int write_kernel(int dirfd, const char *name, const uint8_t *code, size_t n)
{
    struct tiny_kernel k = {
        .head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
            .e_type = ET_EXEC,
            .e_machine = EM_X86_64,
            .e_version = EV_CURRENT,
            .e_entry = LOAD_ADDRESS,
            .e_phoff = offsetof(struct tiny_kernel, load),
            .e_ehsize = sizeof(Elf64_Ehdr),
            .e_phentsize = sizeof(Elf64_Phdr),
            .e_phnum = 2},
        .load = {.p_type = PT_LOAD,
            .p_flags = PF_R | PF_X,
            .p_offset = offsetof(struct tiny_kernel, code),
            .p_vaddr = LOAD_ADDRESS,
            .p_paddr = LOAD_ADDRESS,
            .p_filesz = CODE_MAX,
            .p_memsz = CODE_MAX,
            .p_align = 4},
        .note = {.p_type = PT_NOTE,
            .p_flags = PF_R,
            .p_offset = offsetof(struct tiny_kernel, pvh),
            .p_filesz = sizeof k.pvh,
            .p_memsz = sizeof k.pvh,
            .p_align = 4},
        .pvh = {.head = {.n_namesz = 4, .n_descsz = 8, .n_type = PVH_NOTE},
            .name = "Xen",
            .entry = LOAD_ADDRESS},
    };
    memcpy(k.code, code, n);
    return write_file(dirfd, name, &k, sizeof k, 0);
}

static int write_images(struct fixture *f)
{
    struct err e = {0};
    AUTO_CLOSE int dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    static const char *const names[] = {"hello", "chatty", "reset"};
    for (int i = 0; i < 3; i++)
        (void)snprintf(f->kernel[i], sizeof f->kernel[i], "%s/%s", f->dir, names[i]);
    (void)snprintf(f->initrd, sizeof f->initrd, "%s/initrd", f->dir);
    (void)snprintf(f->base, sizeof f->base, "%s/base.img", f->dir);
    (void)snprintf(f->overlay, sizeof f->overlay, "%s/overlay", f->dir);
    if (write_kernel(dirfd, "hello", hello_code, sizeof hello_code) < 0 ||
        write_kernel(dirfd, "chatty", chatty_code, sizeof chatty_code) < 0 ||
        write_kernel(dirfd, "reset", reset_code, sizeof reset_code) < 0 ||
        write_file(dirfd, "initrd", "x", 1, 0) < 0 ||
        write_file(dirfd, "base.img", "root", 4, 1 << 20) < 0)
        return -1;
    return disk_overlay_create(dirfd, "overlay", 1 << 20, FIXTURE_UID, &e);
}

static int run_ip(const char *const *words)
{
    struct err e = {0};
    const char *argv[12] = {"ip"};
    const int fds[] = {-1, 2, 2};
    struct proc_spawn s = {.path = "/sbin/ip", .argv = (char *const *)argv, .fds = fds, .n_fds = 3};
    int status;
    pid_t pid;
    for (size_t i = 0; words[i]; i++)
        argv[i + 1] = words[i];
    if (proc_spawn(&s, &pid, &e) < 0 || proc_reap(pid, &status, &e) < 0) {
        (void)fprintf(stderr, "%s\n", e.msg);
        return -1;
    }
    return status == 0 ? 0 : -1;
}

int fixture_netns_add(const char *name)
{
    const char *add[] = {"netns", "add", name, NULL};
    const char *tap[] = {"-n", name, "tuntap", "add", GUEST_TAP, "mode", "tap", NULL};
    const char *up[] = {"-n", name, "link", "set", GUEST_TAP, "up", NULL};
    return run_ip(add) < 0 || run_ip(tap) < 0 || run_ip(up) < 0 ? -1 : 0;
}

int fixture_netns_delete(const char *name)
{
    const char *del[] = {"netns", "delete", name, NULL};
    return run_ip(del);
}

static int make_netns(struct fixture *f)
{
    (void)snprintf(f->netns_name, sizeof f->netns_name, "tpvmtest-%d", (int)getpid());
    (void)snprintf(f->netns, sizeof f->netns, "/run/netns/%s", f->netns_name);
    return fixture_netns_add(f->netns_name);
}

const char *fixture_missing(void)
{
    if (geteuid() != 0)
        return "starting VMs needs root";
    if (access("/usr/bin/qemu-system-x86_64", X_OK) < 0)
        return "qemu-system-x86_64 is not installed";
    if (access("/sbin/ip", X_OK) < 0)
        return "ip (iproute2) is not installed";
    return NULL;
}

int fixture_set_up(void **state)
{
    static struct fixture f;
    struct err e = {0};
    f = (struct fixture){.host = {.shim = SHIM_PATH, .run_dir = f.dir}};
    (void)snprintf(f.dir, sizeof f.dir, "/tmp/torpor-vm-XXXXXX");
    if (!mkdtemp(f.dir) || write_images(&f) < 0 || make_netns(&f) < 0)
        return -1;
    if (vmm_host_probe("tcg", &f.host, &e) < 0) {
        (void)fprintf(stderr, "%s\n", e.msg);
        return -1;
    }
    *state = &f;
    return 0;
}

int fixture_tear_down(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    int rc = vmm_remove_leftovers(&f->host, NULL, NULL, &e);
    vmm_host_done(&f->host);
    if (fixture_netns_delete(f->netns_name) < 0 || io_remove_tree(AT_FDCWD, f->dir, &e) < 0)
        rc = -1;
    return rc;
}

int fixture_tidy(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    return vmm_remove_leftovers(&f->host, NULL, NULL, &e);
}

struct vmm_boot fixture_boot(const struct fixture *f, enum guest g)
{
    struct vmm_boot b = {
        .vcpus = 1,
        .memory_mb = 128,
        .kernel = f->kernel[g],
        .initrd = f->initrd,
        .base_image = f->base,
        .overlay = f->overlay,
        .netns = f->netns,
        .uid = FIXTURE_UID,
        .console_dir = f->dir,
    };
    sandbox_id_new(&b.id);
    return b;
}

static bool console_holds(const char *path, const char *text)
{
    struct err ignored;
    AUTO_BUF struct buf log = BUF_INIT(CONSOLE_BYTES_MAX);
    return io_read_file(AT_FDCWD, path, &log, &ignored) == 0 && log.p &&
           memmem(log.p, log.len, text, strlen(text));
}

int fixture_await_console(const struct fixture *f, const char *text)
{
    struct err e = {0};
    int64_t deadline = deadline_in_ms(20000);
    char path[FIXTURE_PATH_MAX + 16];
    AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    (void)snprintf(path, sizeof path, "%s/console.log", f->dir);
    if (inotify_add_watch(watch, path, IN_MODIFY) < 0)
        return -1;
    while (!console_holds(path, text)) {
        char events[4096];
        if (io_wait(watch, POLLIN, deadline, &e) < 0)
            return -1;
        (void)!read(watch, events, sizeof events);
    }
    return 0;
}

int fixture_count_vmms(void)
{
    DIR *d = opendir("/proc");
    const struct dirent *ent;
    int n = 0;
    while (d && (ent = readdir(d))) {
        struct stat st;
        char path[300];
        (void)snprintf(path, sizeof path, "/proc/%s/stat", ent->d_name);
        n += stat(path, &st) == 0 && st.st_uid == FIXTURE_UID;
    }
    if (d)
        (void)closedir(d);
    return n;
}

int fixture_count_sockets(const struct fixture *f)
{
    DIR *d = opendir(f->dir);
    const struct dirent *ent;
    int n = 0;
    while (d && (ent = readdir(d)))
        n += strstr(ent->d_name, ".shim") != NULL;
    if (d)
        (void)closedir(d);
    return n;
}

void fixture_read_proc(pid_t pid, const char *name, struct buf *dst)
{
    struct err e = {0};
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    (void)io_read_file(AT_FDCWD, path, dst, &e);
}
