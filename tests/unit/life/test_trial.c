/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent finds out about saving and restoring at its start, and what follows from it. */
#include "fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/vmm/vmm.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

/* The agent again, that tries this time. */
static void restart(struct fixture *f)
{
    leave_life(f);
    f->tries = true;
    open_life(f);
}

static void expect_note(const struct fixture *f, const char *way, const char *reason)
{
    AUTO_BUF struct buf text = BUF_INIT(4096);
    struct err e = {0};
    char path[128];
    (void)snprintf(path, sizeof path, "%s/memory.json", f->dir);
    assert_int_equal(io_read_file(AT_FDCWD, path, &text, &e), 0);
    buf_append_char(&text, '\0');
    if (!strstr(text.p, way) || !strstr(text.p, reason))
        fail_msg("noted: %s", text.p);
    (void)snprintf(path, sizeof path, "%s/trial", f->dir);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_library_takes_hold(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id;
    restart(f);
    id = create_ok(f);
    expect_note(f, "\"way\":\"private\"", "\"reason\":\"\"");
    assert_int_equal(fakes.format, VMM_SNAPSHOT_FORMAT);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(fakes.format, VMM_SNAPSHOT_FORMAT);
    assert_int_equal(fakes.memory, VMM_MEMORY_PRIVATE);
}

/* Sandboxes sleep all the same; those that slept before wake as they were saved. */
static void test_library_fails(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id before = create_ok(f);
    struct sandbox_id id;
    (void)pause_ok(f, &before);
    fakes.library_fails = true;
    restart(f);
    id = create_ok(f);
    expect_note(f, "\"way\":\"copied\"", "\"reason\":\"it was not found\"");
    assert_int_equal(fakes.format, VMM_SNAPSHOT_FORMAT_COPIED);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &before);
    assert_int_equal(fakes.format, VMM_SNAPSHOT_FORMAT);
    assert_int_equal(fakes.memory, VMM_MEMORY_PRIVATE);
    fakes.library_fails = false;
    restart(f);
    (void)resume_ok(f, &id);
    assert_int_equal(fakes.format, VMM_SNAPSHOT_FORMAT_COPIED);
    assert_int_equal(fakes.memory, VMM_MEMORY_COPIED);
}

/* A VM that an earlier agent started is saved as it was started. */
static void test_adopted(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id;
    fakes.library_fails = true;
    fakes.vms_survive = true;
    restart(f);
    id = create_ok(f);
    fakes.library_fails = false;
    restart(f);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(fakes.format, VMM_SNAPSHOT_FORMAT_COPIED);
    fakes.vms_survive = false;
}

static pid_t creator; /* atomic */

static void *create(void *arg)
{
    __atomic_store_n(&creator, gettid(), __ATOMIC_RELEASE);
    (void)create_ok(arg);
    return NULL;
}

/* Whether the thread waits for another, and not for the disk. */
static bool waits_in_futex(pid_t tid)
{
    AUTO_BUF struct buf text = BUF_INIT(4096);
    struct err ignored;
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)tid);
    return tid > 0 && io_read_file(AT_FDCWD, path, &text, &ignored) == 0 && text.len > 0 &&
           atoi(text.p) == SYS_futex;
}

/* The create has what comes before its VM, and stands still: 100 looks in a row. */
static bool await_standstill(void)
{
    int64_t deadline = deadline_in_ms(20000);
    int looks = 0;
    while (looks < 100) {
        bool waits = waits_in_futex(__atomic_load_n(&creator, __ATOMIC_ACQUIRE)) &&
                     __atomic_load_n(&fakes.slots_acquired_ever, __ATOMIC_RELAXED) == 2;
        looks = waits ? looks + 1 : 0;
        if (__atomic_load_n(&fakes.boots_ever, __ATOMIC_RELAXED) > 0 || clock_mono_ms() > deadline)
            return false;
        (void)sched_yield();
    }
    return true;
}

/* The agent serves before it knows, but starts no VM before. */
static void test_create_waits(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    bool waited;
    int gate[2];
    assert_int_equal(pipe(gate), 0);
    fakes.library_fails = true;
    fakes.trial_gate = gate[0];
    restart(f);
    assert_int_equal(pthread_create(&thread, NULL, create, f), 0);
    waited = await_standstill();
    assert_int_equal(write(gate[1], "x", 1), 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(waited);
    assert_int_equal(fakes.format, VMM_SNAPSHOT_FORMAT_COPIED);
    (void)close(gate[0]);
    (void)close(gate[1]);
}

static void test_no_slot(void **state)
{
    struct fixture *f = *state;
    char path[128];
    int64_t deadline = deadline_in_ms(20000);
    fakes.fail = FAKE_SLOT;
    restart(f);
    (void)snprintf(path, sizeof path, "%s/memory.json", f->dir);
    while (access(path, F_OK) < 0) {
        assert_true(clock_mono_ms() < deadline);
        (void)sched_yield();
    }
    expect_note(f, "\"way\":\"unknown\"", "\"reason\":\"");
    fakes.fail = FAKE_NONE;
    (void)create_ok(f);
    assert_int_equal(fakes.format, VMM_SNAPSHOT_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE_TEST(test_library_takes_hold),
        LIFE_TEST(test_library_fails),
        LIFE_TEST(test_adopted),
        LIFE_TEST(test_create_waits),
        LIFE_TEST(test_no_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
