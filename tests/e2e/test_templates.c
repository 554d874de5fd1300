/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates of sandboxes that run or sleep: their names, what is spawned from them, what becomes of
 * their users when they are overwritten or deleted, and what they cost.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "sleep.h"

enum { MANY = 6, MIB = 1 << 20, WRITTEN_MIB = 20, SETTLE_MS = 30000 };

static struct stack stack;
static const char *unavailable;

static int setup(void **state)
{
    unavailable = stack_unavailable();
    if (!unavailable)
        stack_start(&stack);
    return 0;
}

static int teardown(void **state)
{
    if (!unavailable)
        stack_stop(&stack);
    return 0;
}

#define NEEDS_STACK()                                                                              \
    do {                                                                                           \
        if (unavailable) {                                                                         \
            print_message("skip: %s\n", unavailable);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* A version of memory and disk: every page, and a file of some size that is read from the disk. */
struct version {
    char memory[HOLD_LINE];
    char disk[64];
};

static void read_disk(const char *id, char ret[64])
{
    AUTO_REPLY struct reply r = {0};
    sh_in(&stack, id, "echo 3 > /proc/sys/vm/drop_caches; md5sum < /root/big", &r);
    (void)snprintf(ret, 64, "%.32s", reply_text(&r, "stdout"));
    assert_int_equal(strlen(ret), 32);
}

static void write_version(const char *id, int number, struct version *ret)
{
    char command[160];
    char answer[HOLD_LINE];
    AUTO_REPLY struct reply r = {0};
    (void)snprintf(command, sizeof command, "fill %d", number);
    hold(&stack, id, command, answer);
    hold_check(&stack, id, ret->memory);
    (void)snprintf(command, sizeof command, "yes %d | head -c 3000000 > /root/big; sync", number);
    sh_in(&stack, id, command, &r);
    assert_int_equal(reply_int(&r, "exit_code"), 0);
    read_disk(id, ret->disk);
}

static void is_version(const char *id, const struct version *v)
{
    char disk[64];
    hold_is(&stack, id, v->memory);
    read_disk(id, disk);
    assert_string_equal(disk, v->disk);
}

static void create_first(char id[32], struct version *ret)
{
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    hold_start(&stack, id, 8);
    write_version(id, 1, ret);
}

static void get_template(const char *name, struct reply *ret)
{
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/snapshots/%s", name);
    api(&stack, "GET", path, NULL, ret);
}

static void refused(const char *path, const char *body, int status, const char *code)
{
    AUTO_REPLY struct reply r = {0};
    api(&stack, "POST", path, body, &r);
    assert_int_equal(r.status, status);
    assert_string_equal(reply_text(&r, "error.code"), code);
}

static void sleeps_and_wakes(const char *id, const struct version *v)
{
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    is_version(id, v);
}

static bool is_listed(const char *name)
{
    AUTO_REPLY struct reply r = {0};
    api(&stack, "GET", "/v1/snapshots?type=snapshot", NULL, &r);
    assert_int_equal(r.status, 200);
    for (const struct json_value *v = r.json->first; v; v = v->next)
        if (slice_is(json_get(v, "name")->string, name))
            return true;
    return false;
}

static void of_one_that_runs_and_one_that_sleeps(void **state)
{
    char id[32];
    char spawn[32];
    char body[128];
    char status[16];
    char reason[32];
    struct version first;
    AUTO_REPLY struct reply t = {0};
    AUTO_REPLY struct reply s = {0};
    NEEDS_STACK();
    create_first(id, &first);
    make_snapshot(&stack, id, "of-running", "");
    look(&stack, id, status, reason);
    assert_string_equal(status, "running");
    is_version(id, &first);
    pause_sandbox(&stack, id);
    make_snapshot(&stack, id, "of-sleeping", "");
    look(&stack, id, status, reason);
    assert_string_equal(status, "paused");
    assert_true(is_listed("of-running") && is_listed("of-sleeping"));
    get_template("of-running", &t);
    assert_int_equal(t.status, 200);
    assert_string_equal(reply_text(&t, "type"), "snapshot");
    assert_int_equal(reply_int(&t, "vcpus"), 1);
    assert_int_equal(reply_int(&t, "memory_mb"), 256);
    assert_string_equal(reply_text(&t, "default_user"), "root");
    assert_true(reply_int(&t, "size_bytes") > 8 * MIB);
    assert_true(reply_int(&t, "size_bytes") < 256 * MIB);
    /* By its id, which is accepted wherever a name is; asking for another machine gives this one.
     */
    (void)snprintf(body, sizeof body, "{\"template\":\"%s\",\"vcpus\":2,\"memory_mb\":1024}",
        reply_text(&t, "snapshot_id"));
    api(&stack, "POST", "/v1/sandboxes", body, &s);
    assert_int_equal(s.status, 201);
    assert_int_equal(reply_int(&s, "vcpus"), 1);
    assert_int_equal(reply_int(&s, "memory_mb"), 256);
    (void)snprintf(spawn, sizeof spawn, "%s", reply_text(&s, "id"));
    is_version(spawn, &first);
    delete_sandbox(&stack, spawn);
    spawn_from(&stack, "of-sleeping", spawn);
    is_version(spawn, &first);
    sleeps_and_wakes(spawn, &first);
    delete_sandbox(&stack, spawn);
    resume_sandbox(&stack, id);
    is_version(id, &first);
    delete_sandbox(&stack, id);
    delete_snapshot(&stack, "of-running");
    delete_snapshot(&stack, "of-sleeping");
    assert_false(is_listed("of-running"));
}

static void names_that_are_taken(void **state)
{
    char id[32];
    char body[128];
    char with_base[128];
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":128}", id);
    make_snapshot(&stack, id, "taken", "");
    (void)snprintf(body, sizeof body, "{\"sandbox_id\":\"%s\",\"name\":\"taken\"}", id);
    (void)snprintf(with_base, sizeof with_base, "{\"sandbox_id\":\"%s\",\"name\":\"minimal\"}", id);
    refused("/v1/snapshots", body, 409, "already_exists");
    refused("/v1/snapshots", with_base, 409, "already_exists");
    refused("/v1/snapshots?overwrite=true", with_base, 403, "forbidden");
    refused("/v1/sandboxes", "{\"template\":\"not-there\"}", 404, "not_found");
    delete_sandbox(&stack, id);
    delete_snapshot(&stack, "taken");
    refused("/v1/sandboxes", "{\"template\":\"taken\"}", 404, "not_found");
}

/* Users of what is overwritten, then deleted, keep their memory and their disk. */
static void users_outlive_their_template(void **state)
{
    char id[32];
    char running[32];
    char sleeping[32];
    char next[32];
    struct version first;
    struct version second;
    struct version third;
    NEEDS_STACK();
    create_first(id, &first);
    make_snapshot(&stack, id, "changing", "");
    spawn_from(&stack, "changing", running);
    spawn_from(&stack, "changing", sleeping);
    pause_sandbox(&stack, sleeping);
    write_version(id, 2, &second);
    make_snapshot(&stack, id, "changing", "?overwrite=true");
    delete_sandbox(&stack, id);
    spawn_from(&stack, "changing", next);
    is_version(next, &second);
    is_version(running, &first);
    sleeps_and_wakes(running, &first);
    resume_sandbox(&stack, sleeping);
    is_version(sleeping, &first);
    pause_sandbox(&stack, sleeping);
    delete_snapshot(&stack, "changing");
    sleeps_and_wakes(next, &second);
    sleeps_and_wakes(running, &first);
    write_version(running, 3, &third);
    sleeps_and_wakes(running, &third);
    resume_sandbox(&stack, sleeping);
    is_version(sleeping, &first);
    make_snapshot(&stack, sleeping, "again", "");
    delete_sandbox(&stack, sleeping);
    delete_sandbox(&stack, next);
    delete_sandbox(&stack, running);
    spawn_from(&stack, "again", next);
    is_version(next, &first);
    delete_sandbox(&stack, next);
    delete_snapshot(&stack, "again");
}

struct spawner {
    char id[32];
    pthread_t thread;
    int status;
};

static void *run_spawn(void *arg)
{
    struct spawner *s = arg;
    AUTO_REPLY struct reply r = {0};
    api(&stack, "POST", "/v1/sandboxes", "{\"template\":\"parent\"}", &r);
    s->status = r.status;
    (void)snprintf(s->id, sizeof s->id, "%s", reply_text(&r, "id"));
    return NULL;
}

static void many_spawns_at_once(void **state)
{
    char id[32];
    struct version first;
    struct spawner spawns[MANY] = {0};
    NEEDS_STACK();
    create_first(id, &first);
    make_snapshot(&stack, id, "parent", "");
    for (int i = 0; i < MANY; i++)
        assert_int_equal(pthread_create(&spawns[i].thread, NULL, run_spawn, &spawns[i]), 0);
    for (int i = 0; i < MANY; i++)
        (void)pthread_join(spawns[i].thread, NULL);
    for (int i = 0; i < MANY; i++) {
        AUTO_REPLY struct reply r = {0};
        assert_int_equal(spawns[i].status, 201);
        exec_in(&stack, spawns[i].id, "{\"cmd\":\"hostname\"}", &r);
        assert_int_equal(strncmp(reply_text(&r, "stdout"), spawns[i].id, 22), 0);
        hold_is(&stack, spawns[i].id, first.memory);
        delete_sandbox(&stack, spawns[i].id);
    }
    is_version(id, &first);
    delete_sandbox(&stack, id);
    delete_snapshot(&stack, "parent");
}

static long long bytes_now(void)
{
    struct disk_use use;
    disk_use(&stack, &use, NULL);
    return use.bytes;
}

/* What is shared is not stored again; what was written is, once. */
static void cost_what_was_written(void **state)
{
    char id[32];
    char answer[HOLD_LINE];
    long long before;
    long long growth;
    long long idle_growth;
    AUTO_REPLY struct reply t = {0};
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    hold_start(&stack, id, WRITTEN_MIB);
    hold(&stack, id, "fill 1", answer);
    pause_sandbox(&stack, id);
    before = bytes_now();
    make_snapshot(&stack, id, "base-of-it", "");
    assert_true(bytes_now() - before < MIB);
    get_template("base-of-it", &t);
    assert_true(reply_int(&t, "size_bytes") > WRITTEN_MIB * MIB);
    assert_true(reply_int(&t, "size_bytes") <= before);
    resume_sandbox(&stack, id);
    hold(&stack, id, "clock", answer);
    pause_sandbox(&stack, id);
    idle_growth = bytes_now() - before; /* what a guest writes by itself when it wakes and sleeps */
    make_snapshot(&stack, id, "idle", "");
    resume_sandbox(&stack, id);
    before = bytes_now();
    hold(&stack, id, "fill 2", answer);
    pause_sandbox(&stack, id);
    growth = bytes_now() - before;
    print_message(
        "# growth idle=%lld with %d MiB written=%lld\n", idle_growth, WRITTEN_MIB, growth);
    assert_true(growth >= WRITTEN_MIB * MIB);
    assert_true(growth <= WRITTEN_MIB * MIB / 100 * 105 + MIB + idle_growth);
    assert_true(idle_growth < WRITTEN_MIB * MIB / 2);
    delete_sandbox(&stack, id);
    delete_snapshot(&stack, "base-of-it");
    delete_snapshot(&stack, "idle");
}

/* The bytes of deleted templates go a moment later. */
static void nothing_is_left(void **state)
{
    AUTO_BUF struct buf names = BUF_INIT(1 << 20);
    struct disk_use use;
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    NEEDS_STACK();
    do {
        buf_reset(&names);
        disk_use(&stack, &use, &names);
    } while (use.files > 0 && clock_mono_ms() < deadline);
    if (use.files > 0)
        fail_msg("left in the data folder:\n%s", names.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_one_that_runs_and_one_that_sleeps),
        cmocka_unit_test(names_that_are_taken),
        cmocka_unit_test(users_outlive_their_template),
        cmocka_unit_test(many_spawns_at_once),
        cmocka_unit_test(cost_what_was_written),
        cmocka_unit_test(nothing_is_left),
    };
    cmocka_set_test_filter(getenv("TORPOR_TEST")); /* one test, by its name */
    return cmocka_run_group_tests_name("e2e/templates", tests, setup, teardown);
}
