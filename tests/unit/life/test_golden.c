/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the first version's agent kept of a host and its sandboxes, as bytes: every later version
 * must read it. With "write" as second argument this writes the same into the folder, for the
 * version after the next change of a format; bytes that are kept are never written again.
 */
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

#include "agent/life/host.h"
#include "agent/life/journal.h"
#include "agent/life/snapshots.h"
#include "base/cleanup.h"
#include "base/io.h"

#define RUN_FILE "run/sbcdefghijklmnopqrst22.json"
/* HMAC-SHA256 of "envd-token:<id>:0", made with another program. */
#define TOKEN "796bbfa3545fa9fc468925c7e93372f186560e8780004b9b803fddfc692f72dd"

static const char *golden_dir;

/* One that sleeps. */
static const struct journal_entry state = {.id = {"sbcdefghijklmnopqrst22"},
    .state = {.status = SANDBOX_PAUSED, .reason = REASON_IDLE, .revision = 41},
    .message = "said \"so\"",
    .template = "minimal",
    .image_digest = "0123456789abcdef",
    .request_id = "req-1",
    .vcpus = 2,
    .memory_mb = 512,
    .timeout_sec = 600,
    .generation = "f2c8bbb4-5d27-48a0-9d85-db7f2cd83847",
    .owns_generation = 1,
    .snapshot_id = "snapabcdefghijklmnop2345",
    .vmm_digest = "4567",
    .vmm_version = "7.2.19",
    .vmm_accel = "tcg",
    .vmm_tsc_khz = 2600000,
    .created_at_ms = 1767225600123,
    .started_at_ms = 1767225601000,
    .status_since_ms = 1767225602000,
    .last_active_at_ms = 1767225603000};

/* The same one when it runs, while a live snapshot of it is taken. */
static struct journal_entry running(void)
{
    struct journal_entry run = state;
    run.state =
        (struct machine_state){.status = SANDBOX_RUNNING, .reason = REASON_NONE, .revision = 43};
    run.slot = 7;
    run.disk_only = 1;
    (void)snprintf(run.live, sizeof run.live, "%s,", "01537070-9f1a-4fa7-b254-44f266199f08");
    memset(run.secret, 'a', sizeof run.secret - 1);
    return run;
}

static struct snapshot template(void)
{
    struct snapshot t = {.id = {"snapabcdefghijklmnop2345"},
        .vcpus = 2,
        .memory_mb = 512,
        .size_bytes = 1234567,
        .created_at_ms = 1767225600123,
        .default_user = "user"};
    assert_true(uuid_parse(SLICE_LIT("f2c8bbb4-5d27-48a0-9d85-db7f2cd83847"), &t.generation));
    return t;
}

static int open_golden(const char *name)
{
    char path[512];
    int fd;
    (void)snprintf(path, sizeof path, "%s/%s", golden_dir, name);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static int write_golden(void)
{
    AUTO_CLOSE int dir = open_golden("");
    AUTO_CLOSE int templates = open_golden("templates");
    const struct journal_entry run = running();
    const struct snapshot t = template();
    struct err e = {0};
    assert_int_equal(journal_write(dir, JOURNAL_STATE_FILE, &state, &e), 0);
    assert_int_equal(journal_write(dir, RUN_FILE, &run, &e), 0);
    assert_int_equal(snapshot_write(templates, &t, &e), 0);
    return 0;
}

/* Entries are zeros where nothing was set, so that their bytes can be compared. */
static void assert_entry(const struct journal_entry *got, const struct journal_entry *wanted)
{
    assert_int_equal(got->state.status, wanted->state.status);
    assert_int_equal(got->state.reason, wanted->state.reason);
    assert_int_equal(got->state.revision, wanted->state.revision);
    assert_memory_equal(&got->id, &wanted->id, sizeof got->id);
    assert_memory_equal(
        got->message, wanted->message, sizeof *got - offsetof(struct journal_entry, message));
}

static void journal_of_a_sleeping_one(void **unused)
{
    AUTO_CLOSE int dir = open_golden("");
    struct journal_entry got = {0};
    struct err e = {0};
    assert_int_equal(journal_read(dir, JOURNAL_STATE_FILE, &got, &e), 0);
    assert_entry(&got, &state);
}

static void journal_of_a_running_one(void **unused)
{
    AUTO_CLOSE int dir = open_golden("");
    const struct journal_entry wanted = running();
    struct journal_entry got = {0};
    struct err e = {0};
    assert_int_equal(journal_read(dir, RUN_FILE, &got, &e), 0);
    assert_entry(&got, &wanted);
}

static void template_of_a_host(void **unused)
{
    AUTO_CLOSE int dir = open_golden("templates");
    const struct snapshot wanted = template();
    struct snapshot got = {0};
    struct err e = {0};
    assert_int_equal(snapshot_read(dir, &wanted.id, &got, &e), 0);
    assert_string_equal(got.id.text, wanted.id.text);
    assert_memory_equal(&got.generation, &wanted.generation, sizeof got.generation);
    assert_int_equal(got.vcpus, wanted.vcpus);
    assert_int_equal(got.memory_mb, wanted.memory_mb);
    assert_int_equal(got.size_bytes, wanted.size_bytes);
    assert_int_equal(got.created_at_ms, wanted.created_at_ms);
    assert_string_equal(got.default_user, wanted.default_user);
}

static void copy_file(int from, const char *to_dir, const char *name)
{
    AUTO_BUF struct buf bytes = BUF_INIT(1 << 16);
    struct err e = {0};
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", to_dir, name);
    assert_int_equal(io_read_file(from, name, &bytes, &e), 0);
    assert_int_equal(io_replace_file(AT_FDCWD, path, bytes.p, bytes.len, 0600, &e), 0);
}

/* Who it is, and what opens its guests: a running one is only reached with the token it was given.
 */
static void identity_and_token(void **unused)
{
    AUTO_CLOSE int from = open_golden("");
    char root[] = "/tmp/torpor-golden-XXXXXX";
    char dir[64];
    char run[64];
    char token[HOST_TOKEN_CHARS + 1];
    struct host h;
    struct err e = {0};
    assert_non_null(mkdtemp(root));
    (void)snprintf(dir, sizeof dir, "%s/data", root);
    (void)snprintf(run, sizeof run, "%s/run", root);
    assert_int_equal(mkdir(dir, 0755), 0);
    copy_file(from, dir, "host.json");
    copy_file(from, dir, "cluster-secret");
    if (host_open(&h, dir, run, &e) < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(h.id.text, "hostabcdefghijklmnop2345");
    assert_string_equal(h.cluster_id.text, "hostbcdefghijklmnopq2345");
    assert_int_equal(h.instance, 3);
    assert_int_equal(host_token(&h, &state.id, /* token_epoch= */ 0, token, &e), 0);
    assert_string_equal(token, TOKEN);
    host_done(&h);
    assert_int_equal(io_remove_tree(AT_FDCWD, root, &e), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(journal_of_a_sleeping_one),
        cmocka_unit_test(journal_of_a_running_one),
        cmocka_unit_test(template_of_a_host),
        cmocka_unit_test(identity_and_token),
    };
    golden_dir = argc > 1 ? argv[1] : ".";
    if (argc > 2 && strcmp(argv[2], "write") == 0)
        return write_golden();
    return cmocka_run_group_tests_name("life/golden", tests, NULL, NULL);
}
