/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that is full while many sandboxes are due to be put to sleep: none is lost, and they sleep
 * when there is room. Once with calls that say so, and once on a small file system that is full.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "agent/life/life_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "calls.h"
#include "scenes.h"

enum { SANDBOXES = 20, MEMORY_MB = 128, DEADLINE_MS = 60000 };

struct crowd {
    struct fixture *f;
    struct sandbox_id ids[SANDBOXES];
    int counted[SANDBOXES];
    bool is_real; /* a file system of its own */
};

/* As if nobody had used it for so long, and the time to try again had come. */
static void make_idle(struct crowd *c)
{
    struct err e = {0};
    for (size_t i = 0; i < SANDBOXES; i++) {
        struct sandbox *s = registry_find(c->f->life, &c->ids[i], &e);
        assert_non_null(s);
        {
            MUTEX_GUARD(&c->f->life->lock);
            s->entry.timeout_sec = 60;
            s->entry.last_active_at_ms = clock_real_ms() - 3600 * 1000LL;
            s->retry_ms = 0;
        }
        sandbox_unref(s);
    }
}

static void make_busy(struct crowd *c)
{
    struct life_info info;
    struct err e = {0};
    for (size_t i = 0; i < SANDBOXES; i++)
        assert_int_equal(life_set_timeout(c->f->life, &c->ids[i], 0, &info, &e), 0);
}

struct wanted {
    const struct crowd *c;
    enum sandbox_status status;
    enum sandbox_reason reason;
    size_t n;
};

static void count_wanted(void *ctx, const struct life_info *info)
{
    struct wanted *w = ctx;
    w->n += info->entry.state.status == w->status && info->entry.state.reason == w->reason;
}

/* Until all are so; the reaper looks every two seconds. */
static void wait_all(struct crowd *c, enum sandbox_status status, enum sandbox_reason reason)
{
    int64_t deadline = deadline_in_ms(DEADLINE_MS);
    for (;;) {
        struct wanted w = {.c = c, .status = status, .reason = reason};
        struct life_summary summary = {0};
        struct err e = {0};
        assert_int_equal(life_list(c->f->life, 0, count_wanted, &w, &summary, &e), 0);
        if (w.n == SANDBOXES)
            return;
        assert_true(clock_mono_ms() < deadline);
        life_wait_change(c->f->life, summary.host_revision, deadline);
    }
}

static void create_all(struct crowd *c)
{
    for (size_t i = 0; i < SANDBOXES; i++) {
        struct life_create r = request();
        r.memory_mb = MEMORY_MB;
        c->ids[i] = create_with(c->f, r);
        c->counted[i] = count_in(c->f, &c->ids[i]);
        if (i % 2 == 0)
            continue; /* the others have an older generation */
        (void)pause_ok(c->f, &c->ids[i]);
        (void)resume_ok(c->f, &c->ids[i]);
        c->counted[i] = count_in(c->f, &c->ids[i]);
    }
}

/* --- a full disk --- */

static void ballast_path(const struct crowd *c, char dst[256])
{
    (void)snprintf(dst, 256, "%s/ballast", c->f->dir);
}

static void fill(struct crowd *c)
{
    static const struct fault none_left = {.error = ENOSPC,
        .at = 1,
        .lasting = true,
        .data_only = true,
        .calls = " write pwrite copy_file_range ftruncate "};
    static const char chunk[4096] = "full";
    char path[256];
    int fd;
    if (!c->is_real) {
        faults_begin(&none_left);
        return;
    }
    ballast_path(c, path);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, chunk, sizeof chunk) > 0)
        continue;
    assert_int_equal(errno, ENOSPC);
    (void)close(fd);
}

static void make_room(struct crowd *c)
{
    char path[256];
    if (c->is_real) {
        ballast_path(c, path);
        assert_int_equal(unlink(path), 0);
    } else {
        assert_true(faults_end().seen > 0);
    }
}

static void nobody_is_lost(struct crowd *c)
{
    create_all(c);
    fill(c);
    make_idle(c);
    wait_all(c, SANDBOX_RUNNING, REASON_PAUSE_FAILED);
    make_busy(c);
    for (size_t i = 0; i < SANDBOXES; i++)
        assert_int_equal(count_in(c->f, &c->ids[i]), ++c->counted[i]);
    assert_int_equal(fakes.vcpus_stand, 0);
    make_room(c);
    assert_no_leaks(c->f->dir);
    make_idle(c);
    wait_all(c, SANDBOX_PAUSED, REASON_IDLE);
    for (size_t i = 0; i < SANDBOXES; i++) {
        (void)resume_ok(c->f, &c->ids[i]);
        assert_int_equal(count_in(c->f, &c->ids[i]), ++c->counted[i]);
        destroy_ok(c->f, &c->ids[i]);
    }
    assert_nothing_left(c->f, &c->ids[0]);
}

static void run(struct crowd *c)
{
    struct err e = {0};
    c->f->slots = SANDBOXES;
    open_life(c->f);
    nobody_is_lost(c);
    assert_int_equal(life_close(c->f->life, &e), 0);
}

static void calls_that_say_so(void **state)
{
    struct crowd c = {0};
    fakes_reset();
    c.f = fixture_new(/* warm= */ false);
    run(&c);
    scene_host_free(c.f);
}

static void file_system_that_is_full(void **state)
{
    struct crowd c = {.is_real = true};
    fakes_reset();
    c.f = fixture_new(/* warm= */ false);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", c.f->dir, "tmpfs", 0, "size=32m") < 0) {
        scene_host_free(c.f);
        print_message("# no file system can be mounted here: %s\n", strerror(errno));
        skip();
    }
    make_data(c.f);
    run(&c);
    assert_int_equal(umount2(c.f->dir, MNT_DETACH), 0);
    scene_host_free(c.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_that_say_so),
        cmocka_unit_test(file_system_that_is_full),
    };
    no_fsync = disks_look_large = true;
    return cmocka_run_group_tests_name("durability/full_disk", tests, NULL, NULL);
}
