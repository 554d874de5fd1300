/* SPDX-License-Identifier: Apache-2.0 */
/* The trial with a real QEMU: with our library, and with one that does nothing. Root only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "agent/vmm/trial.h"
#include "base/cleanup.h"
#include "vm_fixture.h"

/* The fixture's host with that library. */
static struct vmm_host host_with(const struct fixture *f, const char *library)
{
    static char keep[FIXTURE_PATH_MAX + 16];
    struct vmm_host h = {
        .shim = SHIM_PATH, .run_dir = f->dir, .library = library, .keep_dir = keep};
    struct err e = {0};
    (void)snprintf(keep, sizeof keep, "%s/vmm", f->dir);
    if (vmm_host_probe("tcg", &h, &e) < 0)
        fail_msg("%s", e.msg);
    return h;
}

static struct vmm_trial try_with(const struct fixture *f, const struct vmm_host *h)
{
    const struct vmm_trial_place place = {.dir = f->dir,
        .base_image = f->base,
        .overlay = f->overlay,
        .netns = f->netns,
        .uid = FIXTURE_UID};
    struct vmm_trial t;
    vmm_try_memory(h, &place, &t);
    assert_int_equal(fixture_count_vmms(), 0);
    assert_int_equal(fixture_count_sockets(f), 0);
    return t;
}

static void test_library(void **state)
{
    const struct fixture *f = *state;
    struct vmm_host h = host_with(f, LIBRARY_PATH);
    struct vmm_trial t = try_with(f, &h);
    assert_string_equal(t.reason, "");
    assert_true(t.is_private);
    assert_int_equal(t.has_uffd, h.has_uffd);
    assert_false(t.is_copied);
    vmm_host_done(&h);
}

/* As in a QEMU that opens its memory by a function that the library does not stand in for. */
static void test_library_without_effect(void **state)
{
    const struct fixture *f = *state;
    struct vmm_host h = host_with(f, EMPTY_LIBRARY_PATH);
    struct vmm_trial t = try_with(f, &h);
    assert_false(t.is_private);
    assert_false(t.has_uffd);
    if (!strstr(t.reason, "/torpor-ram"))
        fail_msg("reason: %s", t.reason);
    if (!t.is_copied)
        fail_msg("without the library: %s", t.reason_copied);
    vmm_host_done(&h);
}

/* Nothing can be started at all. */
static void test_no_machine(void **state)
{
    const struct fixture *f = *state;
    struct vmm_host h = host_with(f, LIBRARY_PATH);
    struct vmm_trial t;
    h.shim = "/bin/false";
    t = try_with(f, &h);
    assert_false(t.is_private);
    assert_false(t.is_copied);
    assert_non_null(strstr(t.reason, "start VM"));
    assert_non_null(strstr(t.reason_copied, "start VM"));
    vmm_host_done(&h);
}

int main(void)
{
    const char *missing = fixture_missing();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_library, fixture_tidy),
        cmocka_unit_test_teardown(test_library_without_effect, fixture_tidy),
        cmocka_unit_test_teardown(test_no_machine, fixture_tidy),
    };
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
