/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations: cutting files, up, down, up again, and what goose would find. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/store/migrate.h"
#include "control/store/sqlite_int.h"

static int64_t query_number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st = NULL;
    int64_t v;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    v = sqlite3_column_int64(st, 0);
    (void)sqlite3_finalize(st);
    return v;
}

static sqlite3 *open_empty(void)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    return db;
}

#define COUNT_TABLES                                                                               \
    "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' "         \
    "AND name <> 'goose_db_version'"

#define HOST_COLUMN "SELECT count(*) FROM pragma_table_info('templates') WHERE name = 'host_id'"

static void sections_are_cut_at_the_marks(void **state)
{
    struct err e = {0};
    struct slice part;
    struct slice text = SLICE_LIT("-- note\n-- +goose Up\nA;\n-- x\n-- +goose Down\nB;");
    assert_int_equal(migration_section(text, /* down= */ false, &part, &e), 0);
    assert_true(slice_is(part, "A;\n-- x\n"));
    assert_int_equal(migration_section(text, /* down= */ true, &part, &e), 0);
    assert_true(slice_is(part, "B;"));
    assert_int_equal(migration_section(SLICE_LIT("-- +goose Up\nA;"), true, &part, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

static void up_down_up(void **state)
{
    struct err e = {0};
    sqlite3 *db = open_empty();
    int64_t version = -1;
    assert_int_equal(sqlite_migrate_up(db, &e), 0);
    assert_int_equal(sqlite_migrate_version(db, &version, &e), 0);
    assert_int_equal(version, migrations[n_migrations - 1].version);
    assert_int_equal(query_number(db, COUNT_TABLES), 11);
    assert_int_equal(sqlite_migrate_up(db, &e), 0);      /* nothing left to do */
    assert_int_equal(sqlite_migrate_down(db, 1, &e), 0); /* one step alone, and up again */
    assert_int_equal(query_number(db, COUNT_TABLES), 10);
    assert_int_equal(query_number(db, HOST_COLUMN), 0);
    assert_int_equal(sqlite_migrate_up(db, &e), 0);
    assert_int_equal(query_number(db, HOST_COLUMN), 1);
    assert_int_equal(sqlite_migrate_down(db, 0, &e), 0);
    assert_int_equal(query_number(db, COUNT_TABLES), 0);
    assert_int_equal(sqlite_migrate_version(db, &version, &e), 0);
    assert_int_equal(version, 0);
    assert_int_equal(sqlite_migrate_up(db, &e), 0);
    assert_int_equal(query_number(db, COUNT_TABLES), 11);
    (void)sqlite3_close(db);
}

static void the_version_table_is_gooses(void **state)
{
    struct err e = {0};
    sqlite3 *db = open_empty();
    assert_int_equal(sqlite_migrate_up(db, &e), 0);
    assert_int_equal(query_number(db, "SELECT count(*) FROM goose_db_version WHERE is_applied = 1 "
                                      "AND version_id IN (0, 1) AND tstamp IS NOT NULL"),
        2);
    (void)sqlite3_close(db);
}

static void a_step_that_fails_leaves_nothing(void **state)
{
    struct err e = {0};
    sqlite3 *db = open_empty();
    int64_t version = -1;
    /* The last table of the step is in the way, so all before it must go again. */
    assert_int_equal(
        sqlite3_exec(db, "CREATE TABLE idempotency_keys (x)", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite_migrate_up(db, &e), -1);
    assert_int_equal(e.kind, ERR_IO);
    assert_int_equal(query_number(db, COUNT_TABLES), 1);
    assert_int_equal(sqlite_migrate_version(db, &version, &e), 0);
    assert_int_equal(version, 0);
    (void)sqlite3_close(db);
}

static void a_newer_database_is_refused(void **state)
{
    struct err e = {0};
    sqlite3 *db = open_empty();
    assert_int_equal(sqlite_migrate_up(db, &e), 0);
    assert_int_equal(
        sqlite3_exec(db, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)",
            NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite_migrate_up(db, &e), -1);
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    (void)sqlite3_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_are_cut_at_the_marks),
        cmocka_unit_test(up_down_up),
        cmocka_unit_test(the_version_table_is_gooses),
        cmocka_unit_test(a_step_that_fails_leaves_nothing),
        cmocka_unit_test(a_newer_database_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
