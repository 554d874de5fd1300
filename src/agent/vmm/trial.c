/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trying to save and to restore a machine.
 *
 * Theory of operation: the guest is 27 bytes of code behind a PVH note, which QEMU's firmware jumps
 * to some 30 ms after exec. It writes a byte into a page of its memory, and then says for ever what
 * it finds there, with a pause in between. So a machine that says that byte after its restore has
 * its code, its registers and its data back. The byte is none that QEMU writes itself to the log.
 *
 * What is saved lies in memory. A library that does not take hold ends QEMU where it opens its
 * memory, or the shim ends it where no handshake comes. A host that is busy may fail a trial too,
 * so that the library is given up only after it has failed twice.
 */
#include "agent/vmm/trial.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "proto/limits.h"

enum {
    STEP_MS = 20000, /* one machine takes 60 ms on an idle host */
    LOAD_ADDRESS = 0x100000,
    CODE_MAX = 64,
    PVH_NOTE = 18, /* XEN_ELFNOTE_PHYS32_ENTRY */
    TOKEN = 0xa5,
    TRIES = 2,
};

static const uint8_t code[] = {
    0x66, 0xba, 0xf8, 0x03,                         /* mov dx, 0x3f8 */
    0xc6, 0x05, 0x00, 0x00, 0x30, 0x00, TOKEN,      /* mov byte [0x300000], TOKEN */
    0xa0, 0x00, 0x00, 0x30, 0x00,                   /* again: mov al, [0x300000] */
    0xee,                                           /* out dx, al */
    0xb9, 0x00, 0x00, 0x04, 0x00, 0x49, 0x75, 0xfd, /* mov ecx, 0x40000; dec ecx; jnz */
    0xeb, 0xf0,                                     /* jmp again */
};

struct kernel {
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

/* Of one machine that was saved: in memory, and -1 when not open. */
struct saved {
    int state, blob, sums, map;
};

struct attempt {
    const struct vmm_host *host;
    const struct vmm_trial_place *place;
    char kernel[PATH_MAX];
    char initrd[PATH_MAX];
    int dir_fd;
    struct saved saved;
};

static void saved_close(struct saved *s)
{
    cleanup_close_(&s->state);
    cleanup_close_(&s->blob);
    cleanup_close_(&s->sums);
    cleanup_close_(&s->map);
    *s = (struct saved){-1, -1, -1, -1};
}

static void attempt_done(struct attempt *a)
{
    cleanup_close_(&a->dir_fd);
    saved_close(&a->saved);
}

/* The VMM's own user reads it. */
static int write_file(int dir_fd, const char *name, const void *src, size_t n, struct err *e)
{
    AUTO_CLOSE int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_sys(e, errno, "%s of the trial", name);
    return io_write_full(fd, src, n, DEADLINE_NEVER, e);
}

static int write_kernel(int dir_fd, struct err *e)
{
    struct kernel k = {
        .head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
            .e_type = ET_EXEC,
            .e_machine = EM_X86_64,
            .e_version = EV_CURRENT,
            .e_entry = LOAD_ADDRESS,
            .e_phoff = offsetof(struct kernel, load),
            .e_ehsize = sizeof(Elf64_Ehdr),
            .e_phentsize = sizeof(Elf64_Phdr),
            .e_phnum = 2},
        .load = {.p_type = PT_LOAD,
            .p_flags = PF_R | PF_X,
            .p_offset = offsetof(struct kernel, code),
            .p_vaddr = LOAD_ADDRESS,
            .p_paddr = LOAD_ADDRESS,
            .p_filesz = CODE_MAX,
            .p_memsz = CODE_MAX,
            .p_align = 4},
        .note = {.p_type = PT_NOTE,
            .p_flags = PF_R,
            .p_offset = offsetof(struct kernel, pvh),
            .p_filesz = sizeof k.pvh,
            .p_memsz = sizeof k.pvh,
            .p_align = 4},
        .pvh = {.head = {.n_namesz = 4, .n_descsz = 8, .n_type = PVH_NOTE},
            .name = "Xen",
            .entry = LOAD_ADDRESS},
    };
    memcpy(k.code, code, sizeof code);
    return write_file(dir_fd, "kernel", &k, sizeof k, e);
}

static int attempt_init(struct attempt *a, struct err *e)
{
    const char *dir = a->place->dir;
    if (snprintf(a->kernel, sizeof a->kernel, "%s/kernel", dir) >= (int)sizeof a->kernel ||
        snprintf(a->initrd, sizeof a->initrd, "%s/initrd", dir) >= (int)sizeof a->initrd)
        return err_set(e, ERR_INVALID, "path too long");
    a->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (a->dir_fd < 0)
        return err_sys(e, errno, "open %s", dir);
    return write_kernel(a->dir_fd, e) < 0 ? -1 : write_file(a->dir_fd, "initrd", "x", 1, e);
}

static bool has_spoken(const struct attempt *a)
{
    AUTO_BUF struct buf log = BUF_INIT(CONSOLE_BYTES_MAX);
    struct err ignored;
    return io_read_file(a->dir_fd, "console.log", &log, &ignored) == 0 && log.p &&
           memchr(log.p, TOKEN, log.len);
}

/* Waits until the guest has said its byte. */
static int await_guest(const struct attempt *a, struct vmm *v, int watch, struct err *e)
{
    int64_t deadline = deadline_in_ms(STEP_MS);
    struct pollfd p[] = {
        {.fd = watch, .events = POLLIN}, {.fd = vmm_event_fd(v), .events = POLLIN}};
    char events[4096];
    while (!has_spoken(a)) {
        int n = poll(p, ARRAY_LEN(p), deadline_poll_ms(deadline));
        if (n < 0 && errno != EINTR)
            return err_sys(e, errno, "poll");
        if (n == 0)
            return err_set(e, ERR_TIMEOUT, "its memory does not hold what it held");
        if (p[1].revents)
            return err_set(e, ERR_UNAVAILABLE, "%s", vmm_exit_text(v));
        (void)!read(watch, events, sizeof events);
    }
    return 0;
}

static int open_watch(const struct attempt *a, struct err *e)
{
    AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch < 0 || inotify_add_watch(watch, a->place->dir, IN_MODIFY | IN_CREATE) < 0)
        return err_sys(e, errno, "watch the console");
    (void)unlinkat(a->dir_fd, "console.log", 0);
    return TAKE_FD(watch);
}

static struct vmm *start(const struct attempt *a, const struct vmm_source *source, struct err *e)
{
    struct vmm_boot boot = {
        .vcpus = 1,
        .memory_mb = LIMIT_MEMORY_MB_MIN,
        .kernel = a->kernel,
        .initrd = a->initrd,
        .base_image = a->place->base_image,
        .overlay = a->place->overlay,
        .netns = a->place->netns,
        .uid = a->place->uid,
        .console_dir = a->place->dir,
        .source = source,
    };
    sandbox_id_new(&boot.id);
    return vmm_start(a->host, &boot, e);
}

/* Whatever became of it, it goes. */
static int stop(struct vmm *v, int rc, struct err *e)
{
    struct err why = {0};
    if (vmm_stop(v, deadline_in_ms(STEP_MS), &why) < 0 && rc == 0) {
        *e = why;
        rc = -1;
    }
    (void)vmm_free(v);
    return rc;
}

static int new_file(int *ret, struct err *e)
{
    *ret = memfd_create("trial", MFD_CLOEXEC);
    return *ret < 0 ? err_sys(e, errno, "memory for a saved machine") : 0;
}

/* As the shim wants what it restores from. */
static int make_read_only(int *fd, struct err *e)
{
    char path[32];
    int again;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    again = open(path, O_RDONLY | O_CLOEXEC);
    if (again < 0)
        return err_sys(e, errno, "open a saved machine");
    (void)close(*fd);
    *fd = again;
    return 0;
}

static int save_machine(struct attempt *a, struct vmm *v, struct err *e)
{
    struct saved *s = &a->saved;
    struct vmm_save save = {.blob = {.bytes = {1}}, .cancel_fd = -1};
    struct vmm_saved numbers;
    if (new_file(&s->state, e) < 0 || new_file(&s->blob, e) < 0 || new_file(&s->sums, e) < 0 ||
        new_file(&s->map, e) < 0)
        return -1;
    save.blob_fd = s->blob;
    save.sums_fd = s->sums;
    save.map_fd = s->map;
    if (vmm_pause(v, deadline_in_ms(STEP_MS), e) < 0 ||
        vmm_save_state(v, s->state, deadline_in_ms(STEP_MS), e) < 0 ||
        vmm_save_memory(v, &save, &numbers, deadline_in_ms(STEP_MS), e) < 0 ||
        make_read_only(&s->blob, e) < 0 || make_read_only(&s->map, e) < 0)
        return -1;
    return numbers.pages_stored > 0 ? 0 : err_set(e, ERR_INTERNAL, "no written page was found");
}

static int boot_and_save(struct attempt *a, struct err *e)
{
    AUTO_CLOSE int watch = open_watch(a, e);
    struct vmm *v = watch < 0 ? NULL : start(a, /* source= */ NULL, e);
    if (!v)
        return -1;
    if (await_guest(a, v, watch, e) < 0 || save_machine(a, v, e) < 0)
        return stop(v, -1, e);
    return stop(v, 0, e);
}

static int load_and_run(struct attempt *a, struct vmm *v, struct err *e)
{
    if (lseek(a->saved.state, 0, SEEK_SET) < 0)
        return err_sys(e, errno, "device state");
    if (vmm_load(v, a->saved.state, deadline_in_ms(STEP_MS), e) < 0)
        return -1;
    return vmm_run(v, deadline_in_ms(STEP_MS), e);
}

static int restore(struct attempt *a, enum vmm_memory memory, struct err *e)
{
    struct vmm_facts facts = a->host->facts;
    const struct vmm_source source = {.facts = &facts,
        .memory = memory,
        .map_fd = a->saved.map,
        .blob_fds = &a->saved.blob,
        .n_blobs = 1,
        .hints_fd = -1};
    AUTO_CLOSE int watch = open_watch(a, e);
    struct vmm *v;
    if (memory == VMM_MEMORY_COPIED)
        facts.snapshot_format = VMM_SNAPSHOT_FORMAT_COPIED;
    v = watch < 0 ? NULL : start(a, &source, e);
    if (!v)
        return -1;
    if (load_and_run(a, v, e) < 0 || await_guest(a, v, watch, e) < 0)
        return stop(v, -1, e);
    return stop(v, 0, e);
}

/* Saved in the way that its restore wants. */
static int save_and_restore(struct attempt *a, enum vmm_memory memory, struct err *e)
{
    saved_close(&a->saved);
    if (boot_and_save(a, e) < 0)
        return err_wrap(e, "save");
    return restore(a, memory, e) < 0 ? err_wrap(e, "restore") : 0;
}

static void try_with_library(struct attempt *a, struct vmm_trial *ret)
{
    struct err e = {0};
    for (int i = 0; i < TRIES && !ret->is_private; i++)
        ret->is_private = save_and_restore(a, VMM_MEMORY_PRIVATE, &e) == 0;
    if (ret->is_private && a->host->has_uffd)
        ret->has_uffd = restore(a, VMM_MEMORY_UFFD, &e) == 0;
    if (!ret->is_private || (a->host->has_uffd && !ret->has_uffd))
        memcpy(ret->reason, e.msg, sizeof ret->reason);
}

static void try_without_library(struct attempt *a, struct vmm_trial *ret)
{
    struct vmm_host host = *a->host;
    struct err e = {0};
    host.copies_memory = true;
    a->host = &host;
    ret->is_copied = save_and_restore(a, VMM_MEMORY_COPIED, &e) == 0;
    if (!ret->is_copied)
        memcpy(ret->reason_copied, e.msg, sizeof ret->reason_copied);
}

void vmm_try_memory(
    const struct vmm_host *host, const struct vmm_trial_place *place, struct vmm_trial *ret)
{
    CLEANUP(attempt_done)
    struct attempt a = {.host = host, .place = place, .dir_fd = -1, .saved = {-1, -1, -1, -1}};
    struct err e = {0};
    *ret = (struct vmm_trial){0};
    if (attempt_init(&a, &e) < 0) {
        memcpy(ret->reason, e.msg, sizeof ret->reason);
        memcpy(ret->reason_copied, e.msg, sizeof ret->reason_copied);
        return;
    }
    try_with_library(&a, ret);
    if (!ret->is_private)
        try_without_library(&a, ret);
}
