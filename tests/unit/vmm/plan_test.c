/* SPDX-License-Identifier: Apache-2.0 */
/* The launch plan: what the agent encodes the shim decodes, and nothing malformed passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "agent/vmm/launch_plan.h"
#include "base/cleanup.h"
#include "base/rand.h"
#include "proto/limits.h"
#include "shim/plan.h"

static const char *const argv[] = {"/usr/bin/vmm", "-x", "", NULL};

static void encode(struct buf *dst)
{
    static struct vmm_files files = {
        .items = {{"/usr/bin/vmm", "/usr/bin/vmm", true}, {"/real/rom", "/rom", false}},
        .n = 2,
    };
    const struct launch_plan p = {
        .id = "sbaaaaaaaaaaaaaaaaaaaa",
        .uid = 64001,
        .fsize_bytes = 1 << 20,
        .use_kvm = true,
        .argv = argv,
        .files = &files,
        .kernel = "/k",
        .initrd = "/i",
    };
    struct err e = {0};
    assert_int_equal(launch_plan_encode(&p, dst, &e), 0);
}

/* Decodes as the shim does once the bytes are there. */
static int decode(const char *bytes, size_t n, struct plan *ret, struct err *e)
{
    if (n < sizeof ret->head)
        return err_set(e, ERR_PROTOCOL, "short");
    memcpy(&ret->head, bytes, sizeof ret->head);
    if (plan_check_head(ret, e) < 0)
        return -1;
    if (ret->head.body_bytes != n - sizeof ret->head)
        return err_set(e, ERR_PROTOCOL, "short");
    memcpy(ret->body, bytes + sizeof ret->head, ret->head.body_bytes);
    return plan_parse_body(ret, e);
}

static int set_up(void **state)
{
    *state = plan_new();
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    *state = plan_free(*state);
    return 0;
}

static void test_round_trip(void **state)
{
    struct plan *p = *state;
    struct err e = {0};
    AUTO_BUF struct buf b = BUF_INIT(1 << 20);
    encode(&b);
    if (decode(b.p, b.len, p, &e) < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(p->head.id, "sbaaaaaaaaaaaaaaaaaaaa");
    assert_string_equal(p->head.tap, GUEST_TAP);
    assert_int_equal(p->head.uid, 64001);
    assert_int_equal(p->head.fsize_bytes, 1 << 20);
    assert_int_equal(p->head.flags, SHIM_PLAN_KVM);
    assert_int_equal(p->head.n_args, 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(p->argv[i], argv[i]);
    assert_null(p->argv[3]);
    assert_int_equal(p->head.n_files, 4);
    assert_string_equal(p->files[0].target, "/usr/bin/vmm");
    assert_true(p->files[0].exec);
    assert_string_equal(p->files[1].source, "/real/rom");
    assert_string_equal(p->files[1].target, "/rom");
    assert_false(p->files[1].exec);
    assert_string_equal(p->files[2].target, JAIL_KERNEL);
    assert_string_equal(p->files[3].source, "/i");
}

static void test_every_cut_is_refused(void **state)
{
    struct plan *p = *state;
    AUTO_BUF struct buf b = BUF_INIT(1 << 20);
    encode(&b);
    for (size_t n = sizeof p->head; n < b.len; n++) {
        struct err e = {0};
        struct shim_plan_head *h = (struct shim_plan_head *)(void *)b.p;
        h->body_bytes = (uint32_t)(n - sizeof *h);
        assert_int_equal(decode(b.p, n, p, &e), -1);
        assert_int_equal(e.kind, ERR_PROTOCOL);
    }
}

static void refuse_head(struct plan *p, const struct shim_plan_head *h)
{
    struct err e = {0};
    p->head = *h;
    assert_int_equal(plan_check_head(p, &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
}

#define REFUSE_HEAD(member, value)                                                                 \
    do {                                                                                           \
        struct shim_plan_head h = good;                                                            \
        h.member = (value);                                                                        \
        refuse_head(p, &h);                                                                        \
    } while (0)

static void test_bad_heads(void **state)
{
    struct plan *p = *state;
    struct err e = {0};
    struct shim_plan_head good;
    AUTO_BUF struct buf b = BUF_INIT(1 << 20);
    encode(&b);
    memcpy(&good, b.p, sizeof good);
    p->head = good;
    assert_int_equal(plan_check_head(p, &e), 0);
    REFUSE_HEAD(magic, 0);
    REFUSE_HEAD(version, SHIM_VERSION + 1);
    REFUSE_HEAD(n_fds, SHIM_FD_COUNT - 1);
    REFUSE_HEAD(body_bytes, 0);
    REFUSE_HEAD(body_bytes, SHIM_BODY_MAX + 1);
    REFUSE_HEAD(n_args, 0);
    REFUSE_HEAD(n_args, SHIM_ARGS_MAX + 1);
    REFUSE_HEAD(n_files, 0);
    REFUSE_HEAD(n_files, SHIM_FILES_MAX + 1);
    REFUSE_HEAD(flags, 16);
    REFUSE_HEAD(n_layers, SHIM_LAYERS_MAX + 1);
    REFUSE_HEAD(n_blobs, SHIM_BLOBS_MAX + 1);
    REFUSE_HEAD(uid, 0);
    REFUSE_HEAD(uid, SHIM_UID_MIN - 1);
    REFUSE_HEAD(uid, UINT32_MAX);
    REFUSE_HEAD(fsize_bytes, 0);
    REFUSE_HEAD(fsize_bytes, UINT64_MAX);
    REFUSE_HEAD(id[0], 'x');
    REFUSE_HEAD(id[5], '/');
    REFUSE_HEAD(id[5], 0);
    REFUSE_HEAD(id[31], 'x');
    REFUSE_HEAD(tap[0], 0);
    REFUSE_HEAD(tap[1], '%');
    REFUSE_HEAD(tap[15], 'x');
}

/* What may stand beside each other in a head about memory. */
static void test_memory(void **state)
{
    struct plan *p = *state;
    struct err e = {0};
    struct shim_plan_head good;
    AUTO_BUF struct buf b = BUF_INIT(1 << 20);
    encode(&b);
    memcpy(&good, b.p, sizeof good);
    good.memory = SHIM_MEMORY_STOCK;
    good.memory_bytes = 0;
    good.flags = 0;
    REFUSE_HEAD(memory_bytes, 4096);
    REFUSE_HEAD(flags, SHIM_PLAN_RESTORE);
    REFUSE_HEAD(flags, SHIM_PLAN_HINTS);
    REFUSE_HEAD(flags, SHIM_PLAN_OLD_PAGEMAP);
    REFUSE_HEAD(n_blobs, 1);
    good.memory = SHIM_MEMORY_COPIED;
    good.memory_bytes = 64 << 20;
    good.flags = SHIM_PLAN_RESTORE;
    REFUSE_HEAD(memory_bytes, 0);
    REFUSE_HEAD(flags, SHIM_PLAN_RESTORE | SHIM_PLAN_HINTS);
    good.memory = SHIM_MEMORY_UFFD;
    good.flags = SHIM_PLAN_RESTORE | SHIM_PLAN_HINTS | SHIM_PLAN_OLD_PAGEMAP;
    good.n_layers = 2;
    good.n_blobs = SHIM_BLOBS_MAX;
    p->head = good;
    if (plan_check_head(p, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(plan_fd_map(p), SHIM_FD_COUNT + 2);
    assert_int_equal(plan_fd_blobs(p), SHIM_FD_COUNT + 3);
    assert_int_equal(plan_fd_hints(p), SHIM_FD_COUNT + 3 + SHIM_BLOBS_MAX);
    assert_int_equal(plan_fd_count(p), SHIM_FD_COUNT + 4 + SHIM_BLOBS_MAX);
    REFUSE_HEAD(memory, SHIM_MEMORY_COUNT);
    REFUSE_HEAD(memory_bytes, 0);
    REFUSE_HEAD(memory_bytes, 4097);
    REFUSE_HEAD(memory_bytes, UINT64_MAX - 4095);
    REFUSE_HEAD(flags, SHIM_PLAN_HINTS);
    REFUSE_HEAD(flags, 0);
}

static bool needs_library;

static int parse_target(struct plan *p, const char *mode, const char *source, const char *target)
{
    struct err e = {0};
    size_t n = 0;
    const char *const strings[] = {"/vmm", mode, source, target};
    p->head.n_args = 1;
    p->head.n_files = 1;
    p->head.memory = needs_library ? SHIM_MEMORY_PRIVATE : SHIM_MEMORY_STOCK;
    for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
        memcpy(p->body + n, strings[i], strlen(strings[i]) + 1);
        n += strlen(strings[i]) + 1;
    }
    p->head.body_bytes = (uint32_t)n;
    return plan_parse_body(p, &e);
}

static void test_bad_paths(void **state)
{
    static const char *const bad[] = {"", "/", "x", "x/y", "/x/", "//x", "/x//y", "/.", "/..",
        "/x/../y", "/x/./y", "/x/..", "/dev", "/dev/null", "/dev/x/y"};
    static const char *const good[] = {"/x", "/x/y", "/...", "/x/.y", "/devx", "/usr/dev/x"};
    char longest[2048];
    memset(longest, 'x', sizeof longest);
    longest[0] = '/';
    longest[sizeof longest - 1] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (parse_target(*state, "r", "/x", bad[i]) == 0)
            fail_msg("accepted target \"%s\"", bad[i]);
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (parse_target(*state, "x", "/x", good[i]) < 0)
            fail_msg("refused target \"%s\"", good[i]);
    assert_int_equal(parse_target(*state, "r", "/x", longest), -1);
    assert_int_equal(parse_target(*state, "r", longest, "/x"), -1);
    assert_int_equal(parse_target(*state, "r", "x", "/x"), -1);
    assert_int_equal(parse_target(*state, "", "/x", "/x"), -1);
    assert_int_equal(parse_target(*state, "w", "/x", "/x"), -1);
}

/* Memory of the shim's without the library that maps it would be another machine. */
static void test_library_must_be_there(void **state)
{
    needs_library = true;
    assert_int_equal(parse_target(*state, "x", "/x", SHIM_LIBRARY), 0);
    assert_int_equal(parse_target(*state, "r", "/x", SHIM_LIBRARY), -1);
    assert_int_equal(parse_target(*state, "x", SHIM_LIBRARY, "/x"), -1);
    needs_library = false;
}

/* Whatever a random change makes of a plan, what passes keeps its promises. */
static void test_random_damage(void **state)
{
    struct plan *p = *state;
    AUTO_BUF struct buf good = BUF_INIT(1 << 20);
    encode(&good);
    for (int i = 0; i < 20000; i++) {
        struct err e = {0};
        uint8_t noise[4];
        AUTO_BUF struct buf b = BUF_INIT(1 << 20);
        buf_append_slice(&b, buf_slice(&good));
        rand_bytes(noise, sizeof noise);
        for (int k = 0; k < 1 + noise[3] % 3; k++)
            b.p[(noise[0] + 251u * noise[1] + 7u * (unsigned)k) % b.len] = (char)(noise[2] + k);
        if (decode(b.p, b.len, p, &e) < 0) {
            assert_int_equal(e.kind, ERR_PROTOCOL);
            continue;
        }
        assert_true(p->head.uid >= SHIM_UID_MIN);
        assert_true(plan_fd_count(p) <= SHIM_FDS_MAX);
        assert_null(p->argv[p->head.n_args]);
        for (unsigned k = 0; k < p->head.n_files; k++) {
            assert_int_equal(p->files[k].target[0], '/');
            assert_null(strstr(p->files[k].target, "/../"));
            assert_true(p->files[k].target < p->body + p->head.body_bytes);
        }
    }
}

static void test_too_large_to_encode(void **state)
{
    static struct vmm_files files = {.n = 0};
    static char huge[SHIM_BODY_MAX];
    const char *const huge_argv[] = {"/vmm", huge, NULL};
    const char *many_argv[SHIM_ARGS_MAX + 2];
    struct launch_plan p = {
        .id = "sb", .argv = huge_argv, .files = &files, .kernel = "/k", .initrd = "/i"};
    struct err e = {0};
    AUTO_BUF struct buf b = BUF_INIT(1 << 20);
    (void)state;
    memset(huge, 'x', sizeof huge);
    huge[sizeof huge - 1] = '\0';
    assert_int_equal(launch_plan_encode(&p, &b, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    for (size_t i = 0; i <= SHIM_ARGS_MAX; i++)
        many_argv[i] = "x";
    many_argv[SHIM_ARGS_MAX + 1] = NULL;
    p.argv = many_argv;
    assert_int_equal(launch_plan_encode(&p, &b, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    assert_int_equal(b.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_cut_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_heads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_library_must_be_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_random_damage, set_up, tear_down),
        cmocka_unit_test(test_too_large_to_encode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
