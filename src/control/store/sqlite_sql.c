/* SPDX-License-Identifier: Apache-2.0 */
/* All SQL of the SQLite store but the schema. Values are always bound, in the order of `?`. */
#include <assert.h>

#include "control/store/sqlite_int.h"

/* The order in which sqlite_sandboxes.c reads a row. */
#define SANDBOX_COLUMNS SANDBOX_COLUMNS_WITH("metadata")
/* The same with another expression in the place of the metadata. */
#define SANDBOX_COLUMNS_WITH(metadata)                                                             \
    "id, team_id, host_id, revision, status, state_reason, state_message, status_since, "          \
    "template, template_id, vcpus, memory_mb, timeout_sec, host_ip, " metadata ", created_at, "    \
    "started_at, last_active_at, last_updated"

/* The order in which sqlite_templates.c reads a row. */
#define TEMPLATE_COLUMNS                                                                           \
    "id, team_id, host_id, name, generation_id, vcpus, memory_mb, size_bytes, default_user, "      \
    "created_at"

const char *const sqlite_texts[] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_CHECK] = "SELECT count(*) FROM (SELECT 1 FROM teams LIMIT 1)",
    [SQL_TEAM_ANY] = "SELECT 1 FROM teams LIMIT 1",
    [SQL_TEAM_INSERT] = "INSERT INTO teams (id, name, created_at) VALUES (?, ?, ?)",
    [SQL_KEY_INSERT] = "INSERT INTO team_api_keys (id, team_id, name, key_hash, key_prefix, "
                       "created_at) VALUES (?, ?, ?, ?, ?, ?)",
    [SQL_KEY_FIND] = "SELECT id, team_id FROM team_api_keys WHERE key_hash = ?",
    [SQL_KEY_DELETE] = "DELETE FROM team_api_keys WHERE team_id = ? AND id = ?",
    [SQL_KEY_TOUCH] = "UPDATE team_api_keys SET last_used = max(?1, coalesce(last_used, 0)) "
                      "WHERE id = ?2",
    [SQL_HOST_SEE] = "INSERT INTO hosts (id, cluster_id, address, state, last_seen, agent_epoch) "
                     "VALUES (?, ?, ?, 'up', ?, ?) ON CONFLICT (id) DO UPDATE SET "
                     "state = 'up', address = excluded.address, last_seen = excluded.last_seen, "
                     "agent_epoch = excluded.agent_epoch "
                     "WHERE hosts.cluster_id = excluded.cluster_id",
    [SQL_HOST_GET] = "SELECT cluster_id, last_seen, agent_epoch FROM hosts WHERE id = ?",
    [SQL_TEMPLATE_FIND_BASE] = "SELECT id FROM templates WHERE team_id IS NULL AND name = ?",
    [SQL_TEMPLATE_INSERT_BASE] = "INSERT INTO templates (id, name, type, created_at) "
                                 "VALUES (?, ?, 'base', ?)",
    [SQL_TEMPLATE_IS_BASE] = "SELECT 1 FROM templates WHERE team_id IS NULL "
                             "AND (name = ?1 OR id = ?1)",
    /* A name comes before an id. */
    [SQL_TEMPLATE_GET] = "SELECT " TEMPLATE_COLUMNS " FROM templates WHERE team_id = ?1 "
                         "AND (name = ?2 OR id = ?2) ORDER BY name <> ?2 LIMIT 1",
    [SQL_TEMPLATE_LIST] = "SELECT " TEMPLATE_COLUMNS " FROM templates WHERE team_id = ?1 "
                          "AND (?2 IS NULL OR created_at < ?2 OR (created_at = ?2 AND id < ?3)) "
                          "ORDER BY created_at DESC, id DESC LIMIT ?4",
    [SQL_TEMPLATE_INSERT] = "INSERT INTO templates (" TEMPLATE_COLUMNS ", type) "
                            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'snapshot')",
    [SQL_TEMPLATE_DELETE] = "DELETE FROM templates WHERE id = ?",
    /* Two snapshots of one paused sandbox are of the same generation. */
    [SQL_GENERATION_INSERT] = "INSERT INTO generations (id, team_id, kind, host_id, bytes, state, "
                              "created_at) VALUES (?, ?, 'snapshot', ?, ?, 'ready', ?) "
                              "ON CONFLICT (id) DO NOTHING",
    [SQL_GENERATION_DELETE] = "DELETE FROM generations WHERE id = ?1 AND NOT EXISTS "
                              "(SELECT 1 FROM templates WHERE generation_id = ?1)",
    [SQL_REMOVAL_INSERT] = "INSERT INTO snapshot_removals (template_id, host_id, not_before) "
                           "VALUES (?, ?, ?)",
    [SQL_REMOVAL_DUE] = "SELECT template_id FROM snapshot_removals WHERE host_id = ? "
                        "AND not_before <= ? ORDER BY not_before",
    [SQL_REMOVAL_DELAY] = "UPDATE snapshot_removals SET not_before = ? WHERE template_id = ?",
    [SQL_REMOVAL_DELETE] = "DELETE FROM snapshot_removals WHERE template_id = ?",
    [SQL_SANDBOX_INSERT] = "INSERT INTO sandboxes (" SANDBOX_COLUMNS ") VALUES "
                           "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [SQL_SANDBOX_GET] = "SELECT " SANDBOX_COLUMNS " FROM sandboxes WHERE id = ?1 "
                        "AND (?2 IS NULL OR team_id = ?2)",
    /* json_each gives decoded keys and values; each wanted pair must be among the row's. */
    [SQL_SANDBOX_LIST] = "SELECT " SANDBOX_COLUMNS " FROM sandboxes AS s WHERE team_id = ?1 "
                         "AND status IN (?2, ?3, ?4, ?5, ?6, ?7, ?8) "
                         "AND (?9 IS NULL OR template = ?9 OR template_id = ?9) "
                         "AND (?10 IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(?10) AS want "
                         "WHERE NOT EXISTS (SELECT 1 FROM json_each(s.metadata) AS have "
                         "WHERE have.key = want.key AND have.value = want.value))) "
                         "AND (?11 IS NULL OR created_at < ?11 OR (created_at = ?11 AND id < ?12)) "
                         "ORDER BY created_at DESC, id DESC LIMIT ?13",
    [SQL_SANDBOX_LIST_LIVE] = "SELECT " SANDBOX_COLUMNS_WITH(
        "'{}'") " FROM sandboxes WHERE host_id = ? "
                "AND status IN ('pending', 'running', 'pausing', 'paused', "
                "'resuming')",
    [SQL_SANDBOX_COUNT] = "SELECT status, count(*) FROM sandboxes GROUP BY status",
    [SQL_SANDBOX_STATE] = "SELECT team_id, status, state_reason, revision FROM sandboxes "
                          "WHERE id = ?",
    [SQL_SANDBOX_CHANGE] = "UPDATE sandboxes SET status = ?, state_reason = ?, state_message = ?, "
                           "revision = max(revision, ?), status_since = ?, "
                           "started_at = coalesce(?, started_at), "
                           "last_active_at = max(coalesce(?, 0), coalesce(last_active_at, 0)), "
                           "vcpus = coalesce(?, vcpus), memory_mb = coalesce(?, memory_mb), "
                           "host_ip = coalesce(?, host_ip), last_updated = ? WHERE id = ?",
    [SQL_SANDBOX_PATCH] = "UPDATE sandboxes SET timeout_sec = coalesce(?, timeout_sec), "
                          "metadata = coalesce(?, metadata), last_updated = ? WHERE id = ?",
    [SQL_SANDBOX_TOUCH] = "UPDATE sandboxes SET last_active_at = "
                          "max(?1, coalesce(last_active_at, 0)) WHERE id = ?2",
    [SQL_SANDBOX_PURGE] =
        "DELETE FROM sandboxes WHERE status_since < ? AND "
        "((status = 'stopped' AND state_reason IN ('destroyed', 'client_gone')) OR "
        "(status = 'error' AND state_reason = 'create_failed'))",
    [SQL_EVENT_INSERT] =
        "INSERT INTO events (sandbox_id, seq, team_id, from_status, to_status, reason, "
        "request_id, at) SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7 "
        "FROM events WHERE sandbox_id = ?1",
    [SQL_EVENT_LIST] = "SELECT seq, from_status, to_status, reason, request_id, at FROM events "
                       "WHERE sandbox_id = ? ORDER BY seq",
};
static_assert(sizeof sqlite_texts / sizeof *sqlite_texts == SQL_COUNT, "a text for each");
