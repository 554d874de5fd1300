/* SPDX-License-Identifier: Apache-2.0 */
/* Real shims with real VMs: how they start, what they may, how they end. Root only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "vm_fixture.h"

static struct vmm *start_vm(const struct fixture *f, enum guest g)
{
    struct err e = {0};
    struct vmm_boot boot = fixture_boot(f, g);
    struct vmm *v = vmm_start(&f->host, &boot, &e);
    if (!v)
        fail_msg("%s", e.msg);
    return v;
}

static void stop_vm(struct vmm *v)
{
    struct err e = {0};
    if (vmm_stop(v, deadline_in_ms(10000), &e) < 0)
        fail_msg("%s", e.msg);
    assert_null(vmm_free(v));
}

static void test_start_stop(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    int64_t start = clock_mono_us();
    struct vmm *v = start_vm(f, GUEST_HELLO);
    print_message("vmm_start: %lld us\n", (long long)(clock_mono_us() - start));
    assert_string_equal(vmm_exit_text(v), "running");
    assert_true(vmm_pid(v) > 0 && vmm_shim_pid(v) > 0);
    assert_int_equal(fixture_count_vmms(), 1);
    assert_int_equal(fixture_count_sockets(f), 1);
    assert_int_equal(vmm_stop(v, deadline_in_ms(10000), &e), 0);
    assert_string_equal(vmm_exit_text(v), "qemu killed by SIGKILL");
    assert_int_equal(vmm_stop(v, deadline_in_ms(10000), &e), 0);
    assert_int_equal(kill(vmm_shim_pid(v), 0), -1);
    assert_int_equal(fixture_count_vmms(), 0);
    assert_int_equal(fixture_count_sockets(f), 0);
    assert_null(vmm_free(v));
}

static void test_kill_is_noticed(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    struct vmm *v = start_vm(f, GUEST_HELLO);
    assert_int_equal(kill(vmm_pid(v), SIGKILL), 0);
    assert_true(io_wait(vmm_event_fd(v), POLLIN, deadline_in_ms(2000), &e) > 0);
    assert_string_equal(vmm_exit_text(v), "qemu killed by SIGKILL");
    /* Still readable: the event stays until the VM is stopped. */
    assert_true(io_wait(vmm_event_fd(v), POLLIN, deadline_in_ms(0), &e) > 0);
    stop_vm(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start_stop),
        cmocka_unit_test(test_kill_is_noticed),
    };
    const char *missing = fixture_missing();
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
