/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applies migrations to SQLite, keeping goose's version table, so that the goose program and this
 * one can follow each other on a database.
 *
 * Each step and its row in the table are one transaction: a crash leaves the step done or not done.
 */
#include "control/store/migrate.h"
#include "control/store/sqlite_int.h"

#include <inttypes.h>
#include <stdio.h>

enum { STEP_SQL_MAX = 256 };

static int exec(sqlite3 *db, const char *sql, struct err *e)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return err_set(e, ERR_IO, "database: %s", sqlite3_errmsg(db));
    return 0;
}

/* goose's own definition; version 0 marks a database that goose knows. */
static int make_table(sqlite3 *db, struct err *e)
{
    return exec(db,
        "BEGIN IMMEDIATE;"
        "CREATE TABLE IF NOT EXISTS goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL,"
        " tstamp TIMESTAMP DEFAULT (datetime('now')));"
        "INSERT INTO goose_db_version (version_id, is_applied) SELECT 0, 1"
        " WHERE NOT EXISTS (SELECT 1 FROM goose_db_version);"
        "COMMIT;",
        e);
}

int sqlite_migrate_version(sqlite3 *db, int64_t *ret, struct err *e)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db,
        "SELECT coalesce(max(version_id), 0) FROM goose_db_version AS v WHERE is_applied = 1 AND "
        "id = (SELECT max(id) FROM goose_db_version WHERE version_id = v.version_id)",
        -1, &st, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        *ret = sqlite3_column_int64(st, 0);
    (void)sqlite3_finalize(st);
    if (rc != SQLITE_ROW)
        return err_set(e, ERR_IO, "database: %s", sqlite3_errmsg(db));
    return 0;
}

static int run_section(sqlite3 *db, const struct migration *m, bool down, struct err *e)
{
    struct slice part;
    char *text;
    int rc;
    if (migration_section(migration_text(m), down, &part, e) < 0)
        return -1;
    text = strndup(part.p, part.n);
    if (!text)
        return err_set(e, ERR_NOMEM, "out of memory");
    rc = exec(db, text, e);
    free(text);
    return rc;
}

static int run_step(sqlite3 *db, const struct migration *m, bool down, struct err *e)
{
    char note[STEP_SQL_MAX];
    int rc;
    (void)snprintf(note, sizeof note,
        down ? "DELETE FROM goose_db_version WHERE version_id = %" PRId64
             : "INSERT INTO goose_db_version (version_id, is_applied) VALUES (%" PRId64 ", 1)",
        m->version);
    if (exec(db, "BEGIN IMMEDIATE", e) < 0)
        return -1;
    rc = run_section(db, m, down, e);
    if (rc == 0)
        rc = exec(db, note, e);
    if (rc == 0)
        rc = exec(db, "COMMIT", e);
    if (rc == 0)
        return 0;
    (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return err_wrap(e, "migration %" PRId64 "%s", m->version, down ? " down" : "");
}

int sqlite_migrate_up(sqlite3 *db, struct err *e)
{
    int64_t version;
    if (make_table(db, e) < 0 || sqlite_migrate_version(db, &version, e) < 0)
        return -1;
    if (version > migrations[n_migrations - 1].version)
        return err_set(e, ERR_UNSUPPORTED,
            "the database has schema version %" PRId64 ", this program knows only %" PRId64,
            version, migrations[n_migrations - 1].version);
    for (size_t i = 0; i < n_migrations; i++)
        if (migrations[i].version > version &&
            run_step(db, &migrations[i], /* down= */ false, e) < 0)
            return -1;
    return 0;
}

int sqlite_migrate_down(sqlite3 *db, int64_t version, struct err *e)
{
    int64_t now;
    if (sqlite_migrate_version(db, &now, e) < 0)
        return -1;
    for (size_t i = n_migrations; i-- > 0;)
        if (migrations[i].version <= now && migrations[i].version > version &&
            run_step(db, &migrations[i], /* down= */ true, e) < 0)
            return -1;
    return 0;
}
