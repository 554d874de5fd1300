/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "agent/vmm/qemu_args.h"
#include "base/cleanup.h"
#include "proto/limits.h"
#include "proto/shim.h"

static const struct qemu_facts facts = {
    .id = "sbaaaaaaaaaaaaaaaaaaaa",
    .program = "/usr/bin/qemu-system-x86_64",
    .bios = "/usr/share/qemu/qboot.rom",
    .kernel = "/boot/kernel",
    .initrd = "/boot/initrd",
    .tsc_khz = 2600000,
    .vcpus = 2,
    .memory_mb = 512,
};

static struct qemu_args build(const struct qemu_facts *f)
{
    struct err e = {0};
    struct qemu_args a;
    if (qemu_args_build(f, &a, &e) < 0)
        fail_msg("%s", e.msg);
    assert_null(a.argv[a.n]);
    return a;
}

/* The argument behind the n-th (from 0) `option`, NULL if there is none. */
static const char *value_of(const struct qemu_args *a, const char *option, int n)
{
    for (size_t i = 0; i + 1 < a->n; i++)
        if (strcmp(a->argv[i], option) == 0 && n-- == 0)
            return a->argv[i + 1];
    return NULL;
}

static bool has(const struct qemu_args *a, const char *option)
{
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->argv[i], option) == 0)
            return true;
    return false;
}

static void test_machine(void **state)
{
    struct qemu_args a = build(&facts);
    (void)state;
    assert_string_equal(a.argv[0], "/usr/bin/qemu-system-x86_64");
    assert_true(has(&a, "-nodefaults") && has(&a, "-no-user-config") && has(&a, "-no-reboot"));
    assert_string_equal(value_of(&a, "-accel", 0), "tcg");
    assert_string_equal(value_of(&a, "-cpu", 0), "max");
    assert_string_equal(value_of(&a, "-smp", 0), "2");
    assert_string_equal(value_of(&a, "-m", 0), "512M");
    assert_string_equal(value_of(&a, "-bios", 0), "/usr/share/qemu/qboot.rom");
    assert_string_equal(value_of(&a, "-kernel", 0), "/boot/kernel");
    assert_string_equal(value_of(&a, "-initrd", 0), "/boot/initrd");
    assert_non_null(strstr(value_of(&a, "-M", 0), "microvm,acpi=on,isa-serial=on,rtc=on"));
    assert_string_equal(value_of(&a, "-sandbox", 0),
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    qemu_args_done(&a);
}

static void test_kernel_arguments(void **state)
{
    struct qemu_args a = build(&facts);
    const char *append = value_of(&a, "-append", 0);
    (void)state;
    assert_string_equal(append,
        "console=ttyS0 panic=-1 reboot=t quiet tsc_early_khz=2600000 tsc=reliable no_timer_check "
        "cryptomgr.notests ipv6.disable=1");
    assert_null(strstr(append, "mitigations"));
    assert_null(strstr(append, "rodata"));
    qemu_args_done(&a);
}

static void test_kvm(void **state)
{
    struct qemu_facts f = facts;
    struct qemu_args a;
    (void)state;
    f.use_kvm = true;
    f.tsc_khz = 0;
    a = build(&f);
    assert_string_equal(value_of(&a, "-accel", 0), "kvm");
    assert_string_equal(value_of(&a, "-cpu", 0), "host");
    assert_null(strstr(value_of(&a, "-append", 0), "tsc"));
    qemu_args_done(&a);
}

/* The guest ABI: disk, network, randomness, in this order; nothing is opened by path. */
static void test_devices(void **state)
{
    struct qemu_args a = build(&facts);
    (void)state;
    assert_string_equal(value_of(&a, "-device", 0), "virtio-blk-device,drive=root,id=vda");
    assert_string_equal(
        value_of(&a, "-device", 1), "virtio-net-device,netdev=n0,id=net0,mac=" GUEST_MAC);
    assert_string_equal(value_of(&a, "-device", 2), "virtio-rng-device,id=rng0");
    assert_null(value_of(&a, "-device", 3));
    assert_string_equal(value_of(&a, "-netdev", 0), "tap,id=n0,fd=5,vhost=off");
    assert_string_equal(value_of(&a, "-add-fd", 0), "fd=3,set=1,opaque=overlay");
    assert_string_equal(value_of(&a, "-add-fd", 1), "fd=4,set=2,opaque=base");
    assert_string_equal(value_of(&a, "-chardev", 0), "socket,id=console,fd=6");
    assert_string_equal(value_of(&a, "-serial", 0), "chardev:console");
    qemu_args_done(&a);
}

static void test_disk_graph(void **state)
{
    struct qemu_args a = build(&facts);
    const char *base_file = value_of(&a, "-blockdev", 0);
    const char *base = value_of(&a, "-blockdev", 1);
    const char *overlay_file = value_of(&a, "-blockdev", 2);
    const char *root = value_of(&a, "-blockdev", 3);
    (void)state;
    assert_non_null(strstr(base_file, "\"filename\":\"/dev/fdset/2\""));
    assert_non_null(strstr(base_file, "\"read-only\":true,\"auto-read-only\":false"));
    assert_non_null(strstr(base, "\"read-only\":true,\"auto-read-only\":false"));
    assert_non_null(strstr(overlay_file, "\"filename\":\"/dev/fdset/1\""));
    assert_non_null(strstr(overlay_file, "\"no-flush\":false"));
    assert_non_null(strstr(root, "\"backing\":\"base\""));
    assert_non_null(strstr(root, "\"discard\":\"unmap\""));
    assert_null(value_of(&a, "-blockdev", 4));
    qemu_args_done(&a);
}

static void test_by_hand(void **state)
{
    const struct qemu_by_hand h = {.overlay = "/tmp/o v", .base = "/tmp/it's", .tap = "tap7"};
    struct qemu_facts f = facts;
    struct qemu_args a;
    AUTO_BUF struct buf line = BUF_INIT(65536);
    (void)state;
    f.by_hand = &h;
    a = build(&f);
    qemu_args_print(&a, &line);
    assert_memory_equal(line.p, "/usr/bin/qemu-system-x86_64 -name guest=sbaaa", 44);
    assert_non_null(strstr(line.p, " -append 'console=ttyS0 panic=-1 "));
    assert_non_null(strstr(line.p, "\"filename\":\"/tmp/o v\""));
    assert_non_null(strstr(line.p, "\"filename\":\"/tmp/it'\\''s\""));
    assert_non_null(strstr(line.p, " -netdev tap,id=n0,ifname=tap7,script=no,downscript=no,"));
    assert_non_null(strstr(line.p, " -serial stdio"));
    assert_null(strstr(line.p, "add-fd"));
    assert_null(strstr(line.p, "fd="));
    qemu_args_done(&a);
}

static void test_refuses(void **state)
{
    static const char *const paths[] = {"relative", "/a,b", "/a\"b", "/a\\b", "/a\nb", ""};
    struct qemu_args a;
    struct err e = {0};
    struct qemu_facts f;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const struct qemu_by_hand h = {.overlay = paths[i], .base = "/b", .tap = "tap0"};
        f = facts;
        f.kernel = paths[i];
        assert_int_equal(qemu_args_build(&f, &a, &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
        f = facts;
        f.by_hand = &h;
        assert_int_equal(qemu_args_build(&f, &a, &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
    }
    f = facts;
    f.vcpus = 0;
    assert_int_equal(qemu_args_build(&f, &a, &e), -1);
    assert_string_equal(e.where, "vcpus");
    f.vcpus = LIMIT_VCPUS_MAX + 1;
    assert_int_equal(qemu_args_build(&f, &a, &e), -1);
    f = facts;
    f.memory_mb = LIMIT_MEMORY_MB_MIN - 1;
    assert_int_equal(qemu_args_build(&f, &a, &e), -1);
    assert_string_equal(e.where, "memory_mb");
    f = facts;
    f.tsc_khz = 0;
    assert_int_equal(qemu_args_build(&f, &a, &e), -1);
}

/* The value of the option that holds `text`, NULL if there is none. */
static const char *value_with(const struct qemu_args *a, const char *option, const char *text)
{
    const char *v;
    for (int n = 0; (v = value_of(a, option, n)); n++)
        if (strstr(v, text))
            return v;
    return NULL;
}

static void test_memory(void **state)
{
    struct qemu_facts f = facts;
    struct qemu_args a = build(&f);
    (void)state;
    assert_null(strstr(value_of(&a, "-M", 0), "memory-backend"));
    assert_false(has(&a, "-object"));
    qemu_args_done(&a);
    f.use_library = true;
    a = build(&f);
    assert_non_null(strstr(value_of(&a, "-M", 0), ",memory-backend=ram"));
    assert_string_equal(value_of(&a, "-object", 0),
        "memory-backend-file,id=ram,size=512M,mem-path=" SHIM_RAM_PATH ",share=on");
    qemu_args_done(&a);
}

/* The same machine in the same order, but for what boots it. */
static void test_restores(void **state)
{
    struct qemu_facts f = facts;
    struct qemu_args cold;
    struct qemu_args a;
    const char *device;
    (void)state;
    f.use_library = true;
    cold = build(&f);
    f.restores = true;
    f.kernel = f.initrd = NULL;
    a = build(&f);
    assert_string_equal(value_of(&a, "-incoming", 0), "defer");
    assert_false(has(&cold, "-incoming"));
    assert_false(has(&a, "-kernel") || has(&a, "-initrd") || has(&a, "-append"));
    for (int n = 0; (device = value_of(&cold, "-device", n)); n++)
        assert_string_equal(value_of(&a, "-device", n), device);
    assert_string_equal(value_of(&a, "-M", 0), value_of(&cold, "-M", 0));
    assert_false(has(&a, "-S"));
    qemu_args_done(&a);
    qemu_args_done(&cold);
}

/* A device state that was saved alone, of a machine that has its memory to itself. */
static void test_restores_copied(void **state)
{
    struct qemu_facts f = facts;
    struct qemu_args a;
    (void)state;
    f.is_copied = true;
    a = build(&f);
    assert_false(has(&a, "-S"));
    qemu_args_done(&a);
    f.restores = true;
    f.kernel = f.initrd = NULL;
    a = build(&f);
    assert_true(has(&a, "-S"));
    assert_false(has(&a, "-object"));
    assert_string_equal(value_of(&a, "-global", 1), "migration.send-configuration=off");
    assert_string_equal(value_of(&a, "-global", 2), "migration.store-global-state=off");
    qemu_args_done(&a);
}

static void test_layers(void **state)
{
    struct qemu_facts f = facts;
    struct qemu_args a;
    const char *v;
    (void)state;
    f.n_layers = 2;
    a = build(&f);
    v = value_with(&a, "-blockdev", "\"node-name\":\"layer-0\"");
    assert_non_null(strstr(v, "\"backing\":\"base\""));
    assert_non_null(strstr(v, "\"read-only\":true"));
    v = value_with(&a, "-blockdev", "\"node-name\":\"layer-file-0\"");
    assert_non_null(strstr(v, "\"read-only\":true"));
    v = value_with(&a, "-blockdev", "\"node-name\":\"layer-1\"");
    assert_non_null(strstr(v, "\"backing\":\"layer-0\""));
    v = value_with(&a, "-blockdev", "\"node-name\":\"root\"");
    assert_non_null(strstr(v, "\"backing\":\"layer-1\""));
    assert_non_null(value_with(&a, "-add-fd", "fd=8,"));
    assert_non_null(value_with(&a, "-add-fd", "fd=9,"));
    qemu_args_done(&a);
    f.n_layers = SHIM_LAYERS_MAX;
    a = build(&f); /* as many fit */
    qemu_args_done(&a);
}

static void test_monitor(void **state)
{
    struct qemu_args a = build(&facts);
    (void)state;
    assert_non_null(value_with(&a, "-chardev", "fd=7,server=on,wait=off"));
    assert_non_null(strstr(value_of(&a, "-mon", 0), "mode=control"));
    qemu_args_done(&a);
}

static void test_too_many_layers(void **state)
{
    struct err e = {0};
    struct qemu_args a;
    struct qemu_facts f = facts;
    (void)state;
    f.n_layers = SHIM_LAYERS_MAX + 1;
    assert_int_equal(qemu_args_build(&f, &a, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_kernel_arguments),
        cmocka_unit_test(test_kvm),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_disk_graph),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_restores),
        cmocka_unit_test(test_restores_copied),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_monitor),
        cmocka_unit_test(test_too_many_layers),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
