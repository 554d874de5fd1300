/* SPDX-License-Identifier: Apache-2.0 */
/* The ELF reader and the closure over shared objects: on this test's own program, and on damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent/vmm/elf_needs.h"
#include "agent/vmm/files.h"
#include "agent/vmm/host_int.h"
#include "agent/vmm/vmm.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/rand.h"

struct fixture {
    char dir[64];
    int dirfd;
};

static int set_up(void **state)
{
    static struct fixture f;
    (void)snprintf(f.dir, sizeof f.dir, "/tmp/torpor-files-XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    f.dirfd = open(f.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = &f;
    return f.dirfd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    (void)close(f->dirfd);
    return io_remove_tree(AT_FDCWD, f->dir, &e);
}

static bool needs_name(const struct elf_needs *n, const char *prefix)
{
    for (size_t i = 0; i < n->n_needed; i++)
        if (strncmp(n->needed[i], prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

static void test_own_needs(void **state)
{
    struct err e = {0};
    struct arena a;
    struct elf_needs needs;
    (void)state;
    arena_init(&a, 65536);
    if (elf_read_needs("/proc/self/exe", &a, &needs, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(needs_name(&needs, "libc.so.6"));
    assert_true(needs_name(&needs, "libcmocka.so"));
    assert_string_equal(needs.interp, "/lib64/ld-linux-x86-64.so.2");
    arena_done(&a);
}

/* The path of a file in memory with these bytes; the one of the call before is gone. */
static const char *write_bytes(const void *p, size_t n)
{
    static char path[64];
    static int fd = -1;
    cleanup_close_(&fd);
    fd = memfd_create("elf", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), n);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static void refuse(const void *p, size_t n)
{
    struct err e = {0};
    struct arena a;
    struct elf_needs needs = {.n_needed = 77};
    arena_init(&a, 65536);
    assert_int_equal(elf_read_needs(write_bytes(p, n), &a, &needs, &e), -1);
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    assert_int_equal(needs.n_needed, 77);
    arena_done(&a);
}

/* One loadable segment over the whole file, then a dynamic section and its strings. */
struct tiny_elf {
    Elf64_Ehdr head;
    Elf64_Phdr load;
    Elf64_Phdr dynamic;
    Elf64_Dyn dyn[4];
    char strings[16];
};

static struct tiny_elf tiny(void)
{
    return (struct tiny_elf){
        .head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
            .e_machine = EM_X86_64,
            .e_phoff = offsetof(struct tiny_elf, load),
            .e_phentsize = sizeof(Elf64_Phdr),
            .e_phnum = 2},
        .load = {.p_type = PT_LOAD, .p_filesz = sizeof(struct tiny_elf)},
        .dynamic = {.p_type = PT_DYNAMIC,
            .p_offset = offsetof(struct tiny_elf, dyn),
            .p_filesz = sizeof(Elf64_Dyn) * 4},
        .dyn = {{DT_STRTAB, {offsetof(struct tiny_elf, strings)}}, {DT_STRSZ, {16}},
            {DT_NEEDED, {1}}, {DT_NULL, {0}}},
        .strings = "\0liba.so",
    };
}

static void test_tiny_and_damaged(void **state)
{
    struct err e = {0};
    struct arena a;
    struct elf_needs needs;
    struct tiny_elf t = tiny();
    (void)state;
    arena_init(&a, 65536);
    assert_int_equal(elf_read_needs(write_bytes(&t, sizeof t), &a, &needs, &e), 0);
    assert_int_equal(needs.n_needed, 1);
    assert_string_equal(needs.needed[0], "liba.so");
    assert_null(needs.interp);
    arena_done(&a);

    refuse("not elf", 7);
    refuse(&t, sizeof t - 17); /* the string table is cut off */
    t.head.e_machine = EM_AARCH64;
    refuse(&t, sizeof t);
    t = tiny();
    t.head.e_phoff = UINT64_MAX - 8;
    refuse(&t, sizeof t);
    t = tiny();
    t.dyn[2].d_un.d_val = 16; /* a name behind the table */
    refuse(&t, sizeof t);
    t = tiny();
    t.dyn[1].d_un.d_val = UINT64_MAX;
    refuse(&t, sizeof t);
    t = tiny();
    memset(t.strings, 'x', sizeof t.strings); /* a name without end */
    refuse(&t, sizeof t);
    t = tiny();
    t.dynamic.p_offset = sizeof t;
    refuse(&t, sizeof t);
}

/* Any damage is an error or a result, never a crash (the sanitizers watch). */
static void test_random_damage(void **state)
{
    unsigned char noise[3];
    (void)state;
    for (int i = 0; i < 3000; i++) {
        struct tiny_elf t = tiny();
        struct err e = {0};
        struct arena a;
        struct elf_needs needs;
        arena_init(&a, 65536);
        rand_bytes(noise, sizeof noise);
        ((unsigned char *)&t)[(noise[0] | noise[1] << 8) % sizeof t] = noise[2];
        if (elf_read_needs(write_bytes(&t, sizeof t), &a, &needs, &e) == 0)
            assert_true(needs.n_needed <= 4);
        else
            assert_int_equal(e.kind, ERR_UNSUPPORTED);
        arena_done(&a);
    }
}

static const struct vmm_file *find_target(const struct vmm_files *files, const char *suffix)
{
    for (size_t i = 0; i < files->n; i++) {
        size_t n = strlen(files->items[i].target);
        if (n >= strlen(suffix) && strcmp(files->items[i].target + n - strlen(suffix), suffix) == 0)
            return &files->items[i];
    }
    return NULL;
}

/* The closure of a program that every test machine has: the shell. */
static void test_closure(void **state)
{
    const struct fixture *f = *state;
    const char *const firmware[] = {"/no/such", f->dir, NULL};
    struct vmm_file_dirs dirs = vmm_file_dirs_default(/* use_kvm= */ true);
    struct err e = {0};
    struct vmm_files *files;
    AUTO_CLOSE int rom = openat(f->dirfd, "test.rom", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(rom >= 0);
    dirs.firmware = firmware;
    dirs.bios_name = "test.rom";
    files = vmm_files_new("/bin/sh", &dirs, &e);
    if (!files)
        fail_msg("%s", e.msg);
    assert_string_equal(files->program, "/bin/sh");
    assert_true(find_target(files, "/libc.so.6")->exec);
    assert_true(find_target(files, "/ld-linux-x86-64.so.2")->exec);
    assert_false(find_target(files, "/test.rom")->exec);
    assert_string_equal(files->bios, find_target(files, "/test.rom")->target);
    for (size_t i = 0; i < files->n; i++) {
        assert_int_equal(files->items[i].target[0], '/');
        assert_int_equal(access(files->items[i].source, R_OK), 0);
        assert_ptr_equal(find_target(files, files->items[i].target), &files->items[i]);
    }
    assert_null(vmm_files_free(files));
}

static void test_closure_failures(void **state)
{
    const struct fixture *f = *state;
    const char *const nowhere[] = {f->dir, NULL};
    struct vmm_file_dirs dirs = vmm_file_dirs_default(/* use_kvm= */ true);
    struct err e = {0};
    dirs.bios_name = "no-such.rom";
    assert_null(vmm_files_new("/bin/sh", &dirs, &e));
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "no-such.rom"));
    dirs.libs = nowhere;
    assert_null(vmm_files_new("/bin/sh", &dirs, &e));
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "libc.so.6"));
    assert_null(vmm_files_new("/no/such/program", &dirs, &e));
    assert_int_equal(e.kind, ERR_NOT_FOUND);
}

static void test_probe(void **state)
{
    struct err e = {0};
    struct vmm_host h = {.shim = "/s", .run_dir = "/r"};
    (void)state;
    assert_int_equal(vmm_host_probe("banana", &h, &e), -1);
    assert_null(h.qemu);
    assert_null(h.files);
    if (e.kind == ERR_UNSUPPORTED) {
        print_message("skipped: %s\n", e.msg);
        skip();
    }
    assert_int_equal(e.kind, ERR_INVALID);
    if (vmm_host_probe("tcg", &h, &e) < 0)
        fail_msg("%s", e.msg);
    assert_false(h.use_kvm);
    assert_string_equal(h.shim, "/s");
    assert_non_null(find_target(h.files, "/accel-tcg-x86_64.so"));
    assert_non_null(find_target(h.files, "/qboot.rom"));
    print_message("QEMU needs %zu files; TSC %u kHz\n", h.files->n, h.tsc_khz);
    vmm_host_done(&h);
    assert_null(h.files);
}

/* Two measurements agree, and are whole MHz. */
static void test_tsc(void **state)
{
    uint32_t a = host_measure_tsc_khz();
    uint32_t b = host_measure_tsc_khz();
    (void)state;
    assert_int_equal(a % 1000, 0);
    assert_in_range(a, 500000, 10000000);
    assert_in_range(b, a - 1000, a + 1000);
}

static void test_cpu_flags(void **state)
{
    static const struct slice intel =
        SLICE_LIT("processor\t: 0\nflags\t\t: fpu vmx sse\nvmx flags\t: vnmi\n");
    static const struct slice amd = SLICE_LIT("processor\t: 0\nflags\t\t: fpu sse svm");
    static const struct slice none =
        SLICE_LIT("processor\t: 0\nflags\t\t: fpu svm_lock xvmx\nbugs\t: vmx\n");
    (void)state;
    assert_true(host_flags_have(intel, "vmx"));
    assert_false(host_flags_have(intel, "svm"));
    assert_true(host_flags_have(amd, "svm"));
    assert_false(host_flags_have(none, "svm"));
    assert_false(host_flags_have(none, "vmx"));
    assert_false(host_flags_have(slice_of("", 0), "vmx"));
    assert_true(slice_is(host_flags(intel), "fpu vmx sse"));
    assert_true(slice_is(host_flags(amd), "fpu sse svm"));
    assert_true(slice_is(host_flags(SLICE_LIT("x\nflags\n")), ""));
    assert_true(slice_is(host_flags(slice_of("", 0)), ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_needs),
        cmocka_unit_test(test_tiny_and_damaged),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_closure),
        cmocka_unit_test(test_closure_failures),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_tsc),
        cmocka_unit_test(test_cpu_flags),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
