/* SPDX-License-Identifier: Apache-2.0 */
/* Journal, data folder, instances, tokens, admission. */
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

#include "agent/life/admission.h"
#include "agent/life/host.h"
#include "agent/life/journal.h"
#include "base/clock.h"
#include "base/io.h"

struct fixture {
    char root[64];
    char dir[96];
    char other[96];
    char run[96];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    (void)snprintf(f->root, sizeof f->root, "/tmp/torpor-host-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    (void)snprintf(f->dir, sizeof f->dir, "%s/data", f->root);
    (void)snprintf(f->other, sizeof f->other, "%s/other", f->root);
    (void)snprintf(f->run, sizeof f->run, "%s/run", f->root);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    int rc = io_remove_tree(AT_FDCWD, f->root, &e);
    free(f);
    return rc;
}

static void open_ok(struct host *h, const char *dir, const char *run)
{
    struct err e = {0};
    if (host_open(h, dir, run, &e) < 0)
        fail_msg("host_open: %s", e.msg);
}

static void identity_survives_a_restart(void **state)
{
    struct fixture *f = *state;
    struct host a;
    struct host b;
    char token_a[HOST_TOKEN_CHARS + 1];
    char token_b[HOST_TOKEN_CHARS + 1];
    struct sandbox_id id;
    struct err e = {0};
    sandbox_id_new(&id);
    open_ok(&a, f->dir, f->run);
    assert_int_equal(host_token(&a, &id, 0, token_a, &e), 0);
    host_done(&a);
    open_ok(&b, f->dir, f->run);
    assert_int_equal(host_token(&b, &id, 0, token_b, &e), 0);
    assert_string_equal(a.id.text, b.id.text);
    assert_string_equal(a.cluster_id.text, b.cluster_id.text);
    assert_int_equal(a.instance, b.instance);
    assert_string_equal(token_a, token_b);
    host_done(&b);
}

static void tokens_differ_by_sandbox_and_epoch(void **state)
{
    struct fixture *f = *state;
    struct host h;
    struct sandbox_id one;
    struct sandbox_id two;
    char t[3][HOST_TOKEN_CHARS + 1];
    struct err e = {0};
    sandbox_id_new(&one);
    sandbox_id_new(&two);
    open_ok(&h, f->dir, f->run);
    assert_int_equal(host_token(&h, &one, 0, t[0], &e), 0);
    assert_int_equal(host_token(&h, &one, 1, t[1], &e), 0);
    assert_int_equal(host_token(&h, &two, 0, t[2], &e), 0);
    assert_string_not_equal(t[0], t[1]);
    assert_string_not_equal(t[0], t[2]);
    assert_int_equal(strlen(t[0]), HOST_TOKEN_CHARS);
    host_done(&h);
}

static void secret_is_for_root_only(void **state)
{
    struct fixture *f = *state;
    struct host h;
    struct stat st;
    open_ok(&h, f->dir, f->run);
    assert_int_equal(fstatat(h.dir_fd, "cluster-secret", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0400);
    assert_int_equal(st.st_size, HOST_SECRET_BYTES);
    host_done(&h);
}

static void one_agent_per_data_folder(void **state)
{
    struct fixture *f = *state;
    struct host a;
    struct host b;
    struct err e = {0};
    open_ok(&a, f->dir, f->run);
    assert_int_equal(host_open(&b, f->dir, f->run, &e), -1);
    assert_int_equal(e.kind, ERR_CONFLICT);
    host_done(&a);
}

static void two_installations_get_two_instances(void **state)
{
    struct fixture *f = *state;
    struct host a;
    struct host b;
    open_ok(&a, f->dir, f->run);
    open_ok(&b, f->other, f->run);
    assert_int_not_equal(a.instance, b.instance);
    host_done(&a);
    host_done(&b);
    /* The second one starts first now and must still not take the first one's number. */
    open_ok(&b, f->other, f->run);
    assert_int_equal(b.instance, 1);
    open_ok(&a, f->dir, f->run);
    assert_int_equal(a.instance, 0);
    host_done(&a);
    host_done(&b);
}

static void instance_of_a_folder_that_is_gone_is_free(void **state)
{
    struct fixture *f = *state;
    struct host a;
    struct host b;
    struct err e = {0};
    open_ok(&a, f->dir, f->run);
    host_done(&a);
    assert_int_equal(io_remove_tree(AT_FDCWD, f->dir, &e), 0);
    open_ok(&b, f->other, f->run);
    assert_int_equal(b.instance, a.instance);
    host_done(&b);
}

static void damaged_host_json_is_refused(void **state)
{
    static const char *const bad[] = {"", "{}", "{\"format\":2}", "not json",
        "{\"format\":1,\"host_id\":\"../../etc\",\"cluster_id\":\"x\"}"};
    struct fixture *f = *state;
    char path[128];
    struct err e = {0};
    assert_int_equal(mkdir(f->dir, 0755), 0);
    (void)snprintf(path, sizeof path, "%s/host.json", f->dir);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct host h;
        assert_int_equal(io_replace_file(AT_FDCWD, path, bad[i], strlen(bad[i]), 0644, &e), 0);
        assert_int_equal(host_open(&h, f->dir, f->run, &e), -1);
    }
}

static struct journal_entry sample(void)
{
    struct journal_entry j = {.state = {SANDBOX_RUNNING, REASON_NONE, 42},
        .message = "a \"quoted\" message",
        .template = "minimal",
        .image_digest = "sha256-abc",
        .request_id = "req-1",
        .vcpus = 2,
        .memory_mb = 512,
        .timeout_sec = 60,
        .slot = 7,
        .created_at_ms = 1700000000001,
        .started_at_ms = 1700000000002,
        .status_since_ms = 1700000000003,
        .last_active_at_ms = 1700000000004};
    sandbox_id_new(&j.id);
    return j;
}

static void journal_round_trip(void **state)
{
    struct fixture *f = *state;
    struct journal_entry in = sample();
    struct journal_entry out;
    struct err e = {0};
    int fd = open(f->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(journal_write(fd, "state.json", &in, &e), 0);
    assert_int_equal(journal_read(fd, "state.json", &out, &e), 0);
    assert_string_equal(out.id.text, in.id.text);
    assert_int_equal(out.state.status, in.state.status);
    assert_int_equal(out.state.revision, 42);
    assert_string_equal(out.message, in.message);
    assert_string_equal(out.image_digest, in.image_digest);
    assert_string_equal(out.request_id, in.request_id);
    assert_int_equal(out.memory_mb, 512);
    assert_int_equal(out.slot, 7);
    assert_int_equal(out.last_active_at_ms, in.last_active_at_ms);
    (void)close(fd);
}

static void damaged_journal_is_refused(void **state)
{
    static const char *const bad[] = {
        "", "{", "[]", "{\"format\":1}", "{\"format\":2,\"id\":\"x\"}"};
    struct fixture *f = *state;
    struct journal_entry out = {.vcpus = 77};
    struct err e = {0};
    int fd = open(f->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(journal_read(fd, "state.json", &out, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(io_replace_file(fd, "state.json", bad[i], strlen(bad[i]), 0600, &e), 0);
        assert_int_equal(journal_read(fd, "state.json", &out, &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
        assert_int_equal(out.vcpus, 77); /* untouched */
    }
    (void)close(fd);
}

static void admission_bounds(void **state)
{
    struct admission a;
    struct err e = {0};
    assert_int_equal(admission_init(&a, 1000, /* vcpus_per_core= */ 0, &e), 0);
    a.cores = 2;
    assert_int_equal(admission_reserve(&a, 9, 100, &e), -1); /* more than 4 a core for one */
    assert_int_equal(e.kind, ERR_NO_CAPACITY);
    assert_int_equal(admission_reserve(&a, 1, 1001, &e), -1);
    assert_int_equal(admission_reserve(&a, 8, 600, &e), 0);
    assert_int_equal(admission_reserve(&a, 1, 600, &e), -1); /* memory */
    assert_int_equal(admission_reserve(&a, 8, 400, &e), 0);
    assert_int_equal(admission_reserve(&a, 1, 0, &e), -1); /* 8 a core in all */
    admission_release(&a, 8, 600);
    assert_int_equal(admission_reserve(&a, 8, 600, &e), 0);
    admission_done(&a);
}

static void boots_are_bounded(void **state)
{
    struct admission a;
    struct err e = {0};
    assert_int_equal(admission_init(&a, 1000, /* vcpus_per_core= */ 0, &e), 0);
    a.cores = 1;
    assert_int_equal(admission_boot_begin(&a, deadline_in_ms(1000), &e), 0);
    assert_int_equal(admission_boot_begin(&a, deadline_in_ms(10), &e), -1);
    assert_int_equal(e.kind, ERR_NO_CAPACITY);
    admission_boot_end(&a);
    assert_int_equal(admission_boot_begin(&a, deadline_in_ms(10), &e), 0);
    admission_boot_end(&a);
    admission_done(&a);
}

#define WITH_FOLDER(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(identity_survives_a_restart),
        WITH_FOLDER(tokens_differ_by_sandbox_and_epoch),
        WITH_FOLDER(secret_is_for_root_only),
        WITH_FOLDER(one_agent_per_data_folder),
        WITH_FOLDER(two_installations_get_two_instances),
        WITH_FOLDER(instance_of_a_folder_that_is_gone_is_free),
        WITH_FOLDER(damaged_host_json_is_refused),
        WITH_FOLDER(journal_round_trip),
        WITH_FOLDER(damaged_journal_is_refused),
        cmocka_unit_test(admission_bounds),
        cmocka_unit_test(boots_are_bounded),
    };
    return cmocka_run_group_tests_name("life/host", tests, NULL, NULL);
}
