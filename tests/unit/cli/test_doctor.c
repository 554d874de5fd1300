/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor says of hosts of all kinds, over a faked one. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/doctor.h"

/* The faked host. */
static struct host {
    char root[64];
    int kvm, tun, uffd_device;
    int uffd, scan, soft, dm, reflink;
    uint64_t features;
    int64_t total, free;
    bool root_user, has_qemu, has_nft, kernel_takes;
    const char *chains;
} host;
static struct doctor d;

static int open_device(const char *path)
{
    if (strcmp(path, "/dev/kvm") == 0)
        return host.kvm;
    return strcmp(path, "/dev/net/tun") == 0 ? host.tun : host.uffd_device;
}
static int userfaultfd(uint64_t *ret)
{
    *ret = host.features;
    return host.uffd;
}
static int scan(void)
{
    return host.scan;
}
static int soft(void)
{
    return host.soft;
}
static int dm(void)
{
    return host.dm;
}
static int reflink(const char *dir)
{
    return host.reflink;
}
static int disk(const char *dir, struct doctor_disk *ret)
{
    *ret = (struct doctor_disk){host.total, host.free};
    return 0;
}
static int64_t max_files(void)
{
    return 1 << 20;
}
static bool is_root(void)
{
    return host.root_user;
}
static int run(const char *const *argv, struct buf *ret, struct err *e)
{
    if (strncmp(argv[0], "qemu", 4) == 0) {
        buf_append_cstr(ret, "QEMU emulator version 7.2\nmore\n");
        return host.has_qemu ? 0 : err_set(e, ERR_NOT_FOUND, "there is no qemu-system-x86_64");
    }
    if (!host.has_nft)
        return err_set(e, ERR_NOT_FOUND, "there is no nft");
    if (strcmp(argv[0], "unshare") == 0)
        return host.kernel_takes ? 0 : err_set(e, ERR_INTERNAL, "unshare --net failed");
    buf_append_cstr(ret, strcmp(argv[1], "list") == 0 ? host.chains : "nftables v1\n");
    return 0;
}

static const struct doctor_ops ops = {.open_device = open_device,
    .userfaultfd = userfaultfd,
    .pagemap_scan = scan,
    .soft_dirty = soft,
    .dm_snapshot = dm,
    .reflink = reflink,
    .disk = disk,
    .max_files = max_files,
    .is_root = is_root,
    .run = run};

static void put(const char *path, const char *text)
{
    char full[256];
    FILE *f;
    struct err e = {0};
    (void)snprintf(full, sizeof full, "%s%s", host.root, path);
    *strrchr(full, '/') = '\0';
    assert_int_equal(io_mkdir_p(full, 0755, &e), 0);
    (void)snprintf(full, sizeof full, "%s%s", host.root, path);
    f = fopen(full, "we");
    assert_non_null(f);
    (void)fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* A host on which all is well. */
static int setup(void **state)
{
    host = (struct host){.features = 1 << 15,
        .total = 100ll << 30,
        .free = 50ll << 30,
        .root_user = true,
        .has_qemu = true,
        .has_nft = true,
        .kernel_takes = true,
        .chains = ""};
    (void)snprintf(host.root, sizeof host.root, "/tmp/torpor-doctor-XXXXXX");
    assert_non_null(mkdtemp(host.root));
    put("/proc/cpuinfo", "flags\t\t: fpu svm avx\n");
    put("/proc/net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask\n"
                           "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
                           "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
                           "tp0-3\t00000B0A\t00000000\t0001\t0\t0\t0\tFEFFFFFF\t0\t0\t0\n");
    put("/proc/sys/vm/max_map_count", "262144\n");
    put("/proc/sys/vm/overcommit_memory", "0\n");
    put("/proc/sys/kernel/pid_max", "4194304\n");
    put("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
    put("/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so", "");
    put("/data/kernels/current/vmlinux", "");
    put("/data/images/minimal/manifest.json", "");
    put("/data/memory.json", "{\"format\":1,\"way\":\"private\",\"page_faults\":true,"
                             "\"reason\":\"\",\"vmm\":\"7.2.22\"}");
    return 0;
}

static int teardown(void **state)
{
    struct err e = {0};
    return io_remove_tree(AT_FDCWD, host.root, &e);
}

static void probe(void)
{
    d = (struct doctor){.root = host.root, .ops = &ops, .net = "10.11.0.0/16"};
    (void)snprintf(d.data, sizeof d.data, "%s/data", host.root);
    doctor_probe_vmm(&d);
    doctor_probe_memory(&d);
    doctor_probe_disk(&d);
    doctor_probe_net(&d);
    doctor_probe_limits(&d);
    doctor_probe_files(&d);
    doctor_probe_trial(&d);
}

static const struct doctor_item *item(const char *name)
{
    for (size_t i = 0; i < d.n_items; i++)
        if (strcmp(d.items[i].name, name) == 0)
            return &d.items[i];
    fail_msg("no item %s", name);
    return NULL;
}

static void assert_item(const char *name, enum doctor_level level, const char *says)
{
    const struct doctor_item *i = item(name);
    if (i->level != level || !strstr(i->what, says))
        fail_msg("%s is %s: %s", name, doctor_level_name(i->level), i->what);
    if (level != DOCTOR_OK)
        assert_true(i->means[0] && i->how[0]);
    else
        assert_true(!i->means[0] && !i->how[0]);
}

static void a_good_host_is_all_ok(void **state)
{
    probe();
    for (size_t i = 0; i < d.n_items; i++)
        assert_item(d.items[i].name, DOCTOR_OK, "");
    assert_true(doctor_can_run(&d));
    assert_item("accelerator", DOCTOR_OK, "kvm");
    assert_item("qemu", DOCTOR_OK, "QEMU emulator version 7.2");
    assert_null(strchr(item("qemu")->what, '\n'));
}

static void kvm_without_virtualisation_is_a_pvm_host(void **state)
{
    put("/proc/cpuinfo", "flags\t\t: fpu svmx xsvm avx\n");
    probe();
    assert_item("cpu", DOCTOR_WARN, "neither");
    assert_item("kvm", DOCTOR_WARN, "PVM");
    assert_item("accelerator", DOCTOR_WARN, "tcg");
    assert_non_null(strstr(item("accelerator")->means, "development only"));
    assert_true(doctor_can_run(&d));
}

static void without_any_accelerator_nothing_runs(void **state)
{
    struct err e = {0};
    host.kvm = -ENOENT;
    assert_int_equal(io_remove_tree(AT_FDCWD, host.root, &e), 0);
    (void)mkdir(host.root, 0755);
    probe();
    assert_item("kvm", DOCTOR_WARN, "No such file");
    assert_item("accelerator", DOCTOR_MISSING, "neither KVM");
    assert_item("guest kernel", DOCTOR_MISSING, "not there");
    assert_item("cgroup v2", DOCTOR_WARN, "not mounted");
    assert_false(doctor_can_run(&d));
}

static void what_sandboxes_need_is_missing(void **state)
{
    host.has_qemu = host.has_nft = false;
    host.tun = -EACCES;
    host.free = 1 << 30;
    probe();
    assert_item("qemu", DOCTOR_MISSING, "there is no qemu");
    assert_item("nftables", DOCTOR_MISSING, "there is no nft");
    assert_item("tun", DOCTOR_MISSING, "Permission denied");
    assert_item("disk space", DOCTOR_MISSING, "1 GiB free");
    assert_false(doctor_can_run(&d));
}

static void what_is_only_better_is_a_warning(void **state)
{
    host.uffd = host.uffd_device = host.scan = host.soft = -ENOSYS;
    host.dm = -ENOENT;
    host.reflink = -EOPNOTSUPP;
    put("/proc/sys/vm/max_map_count", "1000\n");
    put("/proc/sys/vm/overcommit_memory", "2\n");
    put("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io\n");
    probe();
    assert_item("userfaultfd", DOCTOR_WARN, "Function not implemented");
    assert_item("uffd wp-async", DOCTOR_WARN, "not there");
    assert_item("pagemap scan", DOCTOR_WARN, "Function");
    assert_item("soft-dirty", DOCTOR_OK, "not there");
    assert_item("device-mapper", DOCTOR_WARN, "without the snapshot target");
    assert_item("reflinks", DOCTOR_WARN, "not supported");
    assert_item("max_map_count", DOCTOR_WARN, "1000");
    assert_item("overcommit", DOCTOR_WARN, "never");
    assert_item("cgroup v2", DOCTOR_WARN, "missing");
    assert_true(doctor_can_run(&d));
}

static void a_kernel_without_nftables(void **state)
{
    host.kernel_takes = false;
    probe();
    assert_item("nftables", DOCTOR_MISSING, "did not take");
    host.root_user = false; /* then it may just not be allowed */
    probe();
    assert_item("nftables", DOCTOR_WARN, "did not take");
    assert_item("user", DOCTOR_WARN, "not root");
}

static void foreign_rules_are_found(void **state)
{
    host.chains = "table inet torpor0 {\n\tchain forward {\n\t\ttype filter hook forward priority "
                  "0; policy drop;\n\t}\n}\n";
    probe();
    assert_item("foreign rules", DOCTOR_OK, "");
    host.chains = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority "
                  "filter; policy drop;\n\t}\n}\n";
    probe();
    assert_item("foreign rules", DOCTOR_WARN, "table ip filter");
}

static void routes_of_others_are_found(void **state)
{
    put("/proc/net/route", "Iface Destination\n"
                           "docker0\t00070B0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
    probe();
    assert_item("routes", DOCTOR_WARN, "over docker0");
    /* A wider route holds the range as well. */
    put("/proc/net/route", "Iface Destination\n"
                           "vpn0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n");
    probe();
    assert_item("routes", DOCTOR_WARN, "over vpn0");
}

/* What the agent's own trial of saving and restoring came to. */
static void the_trial_is_told(void **state)
{
    char path[256];
    probe();
    assert_item("sleep and wake", DOCTOR_OK, "QEMU 7.2.22: memory is mapped, or served");
    put("/data/memory.json", "{\"way\":\"private\",\"page_faults\":false,\"vmm\":\"7.2.22\"}");
    probe();
    assert_item("sleep and wake", DOCTOR_OK, "memory is mapped");
    assert_null(strstr(item("sleep and wake")->what, "page faults"));
    put("/data/memory.json",
        "{\"way\":\"copied\",\"reason\":\"can't open /torpor-ram\",\"vmm\":\"9.0\"}");
    probe();
    assert_item("sleep and wake", DOCTOR_WARN, "QEMU 9.0: can't open /torpor-ram");
    assert_non_null(strstr(item("sleep and wake")->means, "copied"));
    put("/data/memory.json", "{\"way\":\"none\",\"reason\":\"start VM\",\"vmm\":\"9.0\"}");
    probe();
    assert_item("sleep and wake", DOCTOR_WARN, "start VM");
    assert_non_null(strstr(item("sleep and wake")->means, "neither"));
    put("/data/memory.json", "{\"way\":\"unknown\",\"reason\":\"all 4 slots are taken\"}");
    probe();
    assert_item("sleep and wake", DOCTOR_WARN, "could not be tried: all 4 slots");
    put("/data/memory.json", "{");
    probe();
    assert_item("sleep and wake", DOCTOR_WARN, "memory.json");
    (void)snprintf(path, sizeof path, "%s/data/memory.json", host.root);
    assert_int_equal(unlink(path), 0);
    probe();
    assert_item("sleep and wake", DOCTOR_WARN, "not tried");
    assert_true(doctor_can_run(&d));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_good_host_is_all_ok, setup, teardown),
        cmocka_unit_test_setup_teardown(kvm_without_virtualisation_is_a_pvm_host, setup, teardown),
        cmocka_unit_test_setup_teardown(without_any_accelerator_nothing_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(what_sandboxes_need_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_only_better_is_a_warning, setup, teardown),
        cmocka_unit_test_setup_teardown(a_kernel_without_nftables, setup, teardown),
        cmocka_unit_test_setup_teardown(foreign_rules_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(routes_of_others_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(the_trial_is_told, setup, teardown),
    };
    return cmocka_run_group_tests_name("cli/doctor", tests, NULL, NULL);
}
