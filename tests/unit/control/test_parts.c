/* SPDX-License-Identifier: Apache-2.0 */
/* Small parts of the service: metadata merging, gathered activity, transition locks, pins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "control/service/activity.h"
#include "control/service/locks.h"
#include "control/service/metadata.h"
#include "control/service/pins.h"

/* --- metadata --- */

static void assert_merge(
    const char *old, const struct metadata_edit *edits, size_t n, const char *want)
{
    struct err e = {0};
    struct slice got;
    CLEANUP(arena_done) struct arena a;
    arena_init(&a, 4 << 20);
    if (metadata_apply(slice_cstr(old), edits, n, &a, &got, &e) < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(got.p, want);
}

#define SET(k, v)                                                                                  \
    {                                                                                              \
        SLICE_LIT(k), SLICE_LIT(v), false                                                          \
    }
#define REMOVE(k)                                                                                  \
    {                                                                                              \
        SLICE_LIT(k), {NULL, 0}, true                                                              \
    }

static void metadata_merges(void **state)
{
    const struct metadata_edit edits[] = {SET("b", "2"), REMOVE("a"), SET("c", "x\"y")};
    assert_merge("", NULL, 0, "{}");
    assert_merge("{\"a\":\"1\"}", NULL, 0, "{\"a\":\"1\"}");
    assert_merge("{\"a\":\"1\",\"b\":\"1\"}", edits, 3, "{\"b\":\"2\",\"c\":\"x\\\"y\"}");
    assert_merge("{}", edits + 1, 1, "{}"); /* removing what is not there */
}

static void metadata_is_bounded(void **state)
{
    struct metadata_edit edits[LIMIT_METADATA_MAX];
    char keys[LIMIT_METADATA_MAX][8];
    struct err e = {0};
    struct slice got, more;
    const struct metadata_edit extra[] = {SET("extra", "1")};
    const struct metadata_edit swap[] = {SET("extra", "1"), REMOVE("k0")};
    CLEANUP(arena_done) struct arena a;
    arena_init(&a, 4 << 20);
    for (int i = 0; i < LIMIT_METADATA_MAX; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "k%d", i);
        edits[i] = (struct metadata_edit){slice_cstr(keys[i]), SLICE_LIT("v"), false};
    }
    assert_int_equal(metadata_apply(slice_of(NULL, 0), edits, LIMIT_METADATA_MAX, &a, &got, &e), 0);
    assert_int_equal(metadata_apply(got, extra, 1, &a, &more, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_string_equal(e.where, "metadata");
    assert_int_equal(metadata_apply(got, swap, 2, &a, &more, &e), 0);
}

/* --- activity --- */

struct fake_store {
    struct store base;
    struct touch got[8];
    size_t n;
    int calls;
    bool fails;
};

static int fake_touch(struct store *base, const struct touch *t, size_t n, struct err *e)
{
    struct fake_store *s = (struct fake_store *)base;
    s->calls++;
    if (s->fails)
        return err_set(e, ERR_IO, "no");
    assert_true(n <= 8);
    memcpy(s->got, t, n * sizeof *t);
    s->n = n;
    return 0;
}

static const struct store_ops fake_ops = {.touch = fake_touch};

static void activity_is_gathered(void **state)
{
    struct fake_store store = {.base = {&fake_ops}};
    struct activity a;
    struct err e = {0};
    assert_int_equal(activity_init(&a, &e), 0);
    assert_int_equal(activity_flush(&a, &store.base, &e), 0);
    assert_int_equal(store.calls, 0); /* nothing to write, nothing written */
    activity_note(&a, "sbx", 5);
    activity_note(&a, "sbx", 9);
    activity_note(&a, "sbx", 7);
    assert_int_equal(activity_get(&a, "sbx"), 9);
    assert_int_equal(activity_get(&a, "sby"), 0);
    store.fails = true;
    assert_int_equal(activity_flush(&a, &store.base, &e), -1);
    assert_int_equal(activity_get(&a, "sbx"), 9); /* kept */
    store.fails = false;
    assert_int_equal(activity_flush(&a, &store.base, &e), 0);
    assert_int_equal(store.n, 1);
    assert_string_equal(store.got[0].id, "sbx");
    assert_int_equal(store.got[0].at_ms, 9);
    assert_int_equal(activity_get(&a, "sbx"), 0);
    assert_int_equal(a.n, 0);
    activity_done(&a);
}

static void activity_is_bounded(void **state)
{
    struct activity a;
    struct err e = {0};
    char id[16];
    assert_int_equal(activity_init(&a, &e), 0);
    for (int i = 0; i < 2 * ACTIVITY_SLOTS; i++) {
        (void)snprintf(id, sizeof id, "sb%d", i);
        activity_note(&a, id, 1);
    }
    assert_true(a.n < ACTIVITY_SLOTS);
    assert_int_equal(activity_get(&a, "sb0"), 1);
    activity_done(&a);
}

/* --- locks --- */

static struct sandbox_id some_id(void)
{
    struct sandbox_id id;
    sandbox_id_new(&id);
    return id;
}

static void one_holder_per_sandbox(void **state)
{
    struct lock_table t;
    struct lock_entry a = {0}, b = {0}, c = {0};
    struct sandbox_id x = some_id(), y = some_id();
    struct err e = {0};
    lock_table_init(&t);
    assert_int_equal(lock_acquire(&t, &x, 0, &a, &e), 0);
    assert_int_equal(lock_acquire(&t, &x, deadline_in_ms(5), &b, &e), -1);
    assert_int_equal(e.kind, ERR_CONFLICT);
    assert_int_equal(lock_acquire(&t, &y, 0, &c, &e), 0); /* another one is free */
    lock_release(&a);
    lock_release(&a); /* again is fine */
    assert_int_equal(lock_acquire(&t, &x, 0, &b, &e), 0);
    lock_release(&b);
    lock_release(&c);
    lock_table_done(&t);
}

struct waiter {
    struct lock_table *table;
    struct sandbox_id id;
    int rc;
};

static void *wait_for_lock(void *arg)
{
    struct waiter *w = arg;
    struct err e = {0};
    AUTO_LOCK lock = {0};
    w->rc = lock_acquire(w->table, &w->id, deadline_in_ms(20000), &lock, &e);
    return NULL;
}

static void a_release_wakes_the_waiters(void **state)
{
    struct lock_table t;
    struct lock_entry held = {0};
    struct waiter w[3];
    pthread_t threads[3];
    struct err e = {0};
    lock_table_init(&t);
    w[0] = (struct waiter){&t, some_id(), -2};
    assert_int_equal(lock_acquire(&t, &w[0].id, 0, &held, &e), 0);
    for (int i = 0; i < 3; i++) {
        w[i] = w[0];
        assert_int_equal(pthread_create(&threads[i], NULL, wait_for_lock, &w[i]), 0);
    }
    lock_release(&held);
    for (int i = 0; i < 3; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(w[i].rc, 0);
    }
    lock_table_done(&t);
}

/* Holds the lock, then waits for the change that somebody else makes under it. */
static void *wait_for_change(void *arg)
{
    struct waiter *w = arg;
    struct err e = {0};
    AUTO_LOCK lock = {0};
    w->rc = lock_acquire(w->table, &w->id, deadline_in_ms(20000), &lock, &e);
    if (w->rc == 0)
        w->rc = lock_release_and_wait(&lock, deadline_in_ms(20000)) ? 0 : -1;
    return NULL;
}

static void a_change_wakes_who_waits_for_it(void **state)
{
    struct lock_table t;
    struct lock_entry held = {0};
    struct waiter w;
    struct err e = {0};
    pthread_t thread;
    lock_table_init(&t);
    w = (struct waiter){.table = &t, .rc = -1};
    sandbox_id_new(&w.id);
    assert_int_equal(lock_acquire(&t, &w.id, 0, &held, &e), 0);
    assert_false(lock_release_and_wait(&held, deadline_in_ms(5))); /* nobody changed anything */
    assert_int_equal(pthread_create(&thread, NULL, wait_for_change, &w), 0);
    /* Changes until one comes behind the moment when the thread began to wait. */
    while (pthread_tryjoin_np(thread, NULL) != 0) {
        assert_int_equal(lock_acquire(&t, &w.id, deadline_in_ms(20000), &held, &e), 0);
        lock_note_change(&t);
        lock_release(&held);
    }
    assert_int_equal(w.rc, 0);
    lock_table_done(&t);
}

/* --- pins --- */

static void a_pin_is_held_until_its_last_user_lets_go(void **state)
{
    struct pin_table t;
    struct pin a = {0}, b = {0}, none = {0};
    struct template_id x, y;
    pin_table_init(&t);
    template_id_new(&x);
    template_id_new(&y);
    pin_acquire(&t, &x, &a);
    pin_acquire(&t, &x, &b);
    assert_true(pin_is_held(&t, &x));
    assert_false(pin_is_held(&t, &y));
    pin_release(&a);
    pin_release(&a); /* again is fine */
    pin_release(&none);
    assert_true(pin_is_held(&t, &x));
    pin_release(&b);
    assert_false(pin_is_held(&t, &x));
    pin_table_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_merges),
        cmocka_unit_test(metadata_is_bounded),
        cmocka_unit_test(activity_is_gathered),
        cmocka_unit_test(activity_is_bounded),
        cmocka_unit_test(one_holder_per_sandbox),
        cmocka_unit_test(a_release_wakes_the_waiters),
        cmocka_unit_test(a_change_wakes_who_waits_for_it),
        cmocka_unit_test(a_pin_is_held_until_its_last_user_lets_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
