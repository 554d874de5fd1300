/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs inside the lab: what a host with KVM says it can restore, and the same host without. Both
 * sets of files are kept, as after TORPOR_ACCEL was changed.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/vmm/vmm.h"
#include "base/cleanup.h"
#include "base/io.h"

static char root[] = "/tmp/torpor-lab-XXXXXX";
static struct vmm_host kvm = {.keep_dir = root};
static struct vmm_host tcg = {.keep_dir = root};

static int setup(void **state)
{
    struct err e = {0};
    if (!mkdtemp(root))
        return -1;
    if (vmm_host_probe("auto", &kvm, &e) == 0 && vmm_host_probe("tcg", &tcg, &e) == 0)
        return 0;
    print_message("# %s\n", e.msg);
    return -1;
}

static int teardown(void **state)
{
    struct err e = {0};
    vmm_host_done(&kvm);
    vmm_host_done(&tcg);
    return io_remove_tree(AT_FDCWD, root, &e);
}

static void refuses(const struct vmm_host *h, const struct vmm_facts *saved, const char *reason)
{
    struct err e = {0};
    assert_int_equal(vmm_can_restore(h, saved, &e), -1);
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    if (!strstr(e.msg, reason))
        fail_msg("says \"%s\"", e.msg);
}

static void restores(const struct vmm_host *h, const struct vmm_facts *saved)
{
    struct err e = {0};
    if (vmm_can_restore(h, saved, &e) < 0)
        fail_msg("%s", e.msg);
}

static void facts_differ(void **state)
{
    assert_true(kvm.use_kvm);
    assert_string_equal(kvm.facts.accel, "kvm");
    assert_string_equal(kvm.facts.cpu, "host");
    assert_non_null(strstr(kvm.facts.cpu_flags, " svm "));
    assert_false(tcg.use_kvm);
    assert_string_equal(tcg.facts.accel, "tcg");
    assert_string_equal(tcg.facts.cpu, "max");
    assert_string_equal(tcg.facts.cpu_flags, "");
    assert_string_not_equal(kvm.facts.digest, tcg.facts.digest);
}

/* The device exists on 6.1, write tracking does not; serving faults needs the first only. */
static void serves_faults(void **state)
{
    assert_true(kvm.has_uffd);
    assert_false(kvm.old_pagemap); /* nobody asked for it: the kernel's answer is what counts */
}

static void restores_its_own(void **state)
{
    restores(&kvm, &kvm.facts);
    restores(&tcg, &tcg.facts);
}

static void without_kvm_refuses_what_kvm_saved(void **state)
{
    refuses(&tcg, &kvm.facts, "it was saved under KVM, which this host does not have");
}

static void refuses_a_cpu_with_more(void **state)
{
    struct vmm_facts saved = kvm.facts;
    size_t n = strlen(saved.cpu_flags);
    (void)snprintf(saved.cpu_flags + n, sizeof saved.cpu_flags - n, " no_such_flag");
    refuses(&kvm, &saved, "this host's CPU lacks the feature no_such_flag");
}

static bool is_used(void *ctx, const char *digest)
{
    return false;
}

/* A KVM host can emulate as well, with the set of files that saved it and with no other: its own
 * has no emulator. */
static void with_kvm_needs_the_set_that_emulates(void **state)
{
    struct err e = {0};
    restores(&kvm, &tcg.facts);
    assert_int_equal(vmm_sets_collect(&kvm, is_used, NULL, &e), 0);
    refuses(&kvm, &tcg.facts, "is not kept here");
    restores(&kvm, &kvm.facts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(facts_differ),
        cmocka_unit_test(serves_faults),
        cmocka_unit_test(restores_its_own),
        cmocka_unit_test(without_kvm_refuses_what_kvm_saved),
        cmocka_unit_test(refuses_a_cpu_with_more),
        cmocka_unit_test(with_kvm_needs_the_set_that_emulates),
    };
    return cmocka_run_group_tests_name("lab/host", tests, setup, teardown);
}
