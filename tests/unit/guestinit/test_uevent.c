/* SPDX-License-Identifier: Apache-2.0 */
/* Which device events end the waiting for the root disk, and what the waiting does without any. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "guestinit/uevent.h"

#define EVENT(text) slice_of(text, sizeof(text) - 1)

static void test_added_disk(void **state)
{
    (void)state;
    assert_true(uevent_adds_block(EVENT("add@/devices/virtio0/block/vda\0ACTION=add\0"
                                        "DEVPATH=/devices/virtio0/block/vda\0SUBSYSTEM=block\0"
                                        "DEVNAME=vda\0DEVTYPE=disk\0SEQNUM=500\0"),
        "vda"));
    /* The last string may lack its NUL. */
    assert_true(uevent_adds_block(EVENT("ACTION=add\0SUBSYSTEM=block\0DEVNAME=vda"), "vda"));
}

static void test_other_events(void **state)
{
    (void)state;
    assert_false(uevent_adds_block(EVENT("ACTION=remove\0SUBSYSTEM=block\0DEVNAME=vda\0"), "vda"));
    assert_false(uevent_adds_block(EVENT("ACTION=add\0SUBSYSTEM=net\0DEVNAME=vda\0"), "vda"));
    assert_false(uevent_adds_block(EVENT("ACTION=add\0SUBSYSTEM=block\0DEVNAME=vda1\0"), "vda"));
    assert_false(uevent_adds_block(EVENT("ACTION=add\0SUBSYSTEM=block\0DEVNAME=vd\0"), "vda"));
    assert_false(uevent_adds_block(EVENT("ACTION=add\0SUBSYSTEM=block\0XDEVNAME=vda\0"), "vda"));
    assert_false(uevent_adds_block(EVENT("ACTION=add\0SUBSYSTEM=block\0DEVNAME=\0"), "vda"));
    assert_false(uevent_adds_block(EVENT("\0\0\0"), "vda"));
    assert_false(uevent_adds_block(slice_of("", 0), "vda"));
}

/* A pair of sockets stands in for the kernel's. */
static void test_wait_without_device_times_out(void **state)
{
    static const char event[] = "ACTION=add\0SUBSYSTEM=block\0DEVNAME=other\0";
    struct err e = {0};
    int pair[2];
    (void)state;
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, /* protocol= */ 0, pair), 0);
    AUTO_CLOSE int fd = pair[0];
    AUTO_CLOSE int kernel = pair[1];
    assert_int_equal(send(kernel, event, sizeof event - 1, /* flags= */ 0), sizeof event - 1);
    assert_int_equal(uevent_wait_block(fd, "torpor-none", deadline_in_ms(20), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_non_null(strstr(e.msg, "/dev/torpor-none"));
    /* The event was taken, not left to spin on. */
    assert_int_equal(recv(fd, (char[8]){0}, 8, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

static void test_wait_refuses_long_name(void **state)
{
    struct err e = {0};
    (void)state;
    assert_int_equal(uevent_wait_block(/* fd= */ -1,
                         "0123456789012345678901234567890123456789012345678901234567890123",
                         deadline_in_ms(0), &e),
        -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_added_disk),
        cmocka_unit_test(test_other_events),
        cmocka_unit_test(test_wait_without_device_times_out),
        cmocka_unit_test(test_wait_refuses_long_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
