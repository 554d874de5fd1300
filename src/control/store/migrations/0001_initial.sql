-- SPDX-License-Identifier: Apache-2.0
-- Tables of the control plane. Plain SQL that SQLite and PostgreSQL both take: ids are TEXT, times
-- are milliseconds since 1970 in BIGINT, yes and no are INTEGER 1 and 0, JSON is TEXT.

-- +goose Up
CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    email         TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    token_epoch   BIGINT NOT NULL DEFAULT 0,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);

CREATE TABLE teams (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE users_teams (
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    team_id    TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    is_default INTEGER NOT NULL DEFAULT 0,
    role       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, team_id)
);

-- key_hash: SHA-256 of the whole key in lower-case hex; the key itself is nowhere.
CREATE TABLE team_api_keys (
    id         TEXT PRIMARY KEY,
    team_id    TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    key_hash   TEXT NOT NULL UNIQUE,
    key_prefix TEXT NOT NULL,
    created_by TEXT REFERENCES users (id) ON DELETE SET NULL,
    created_at BIGINT NOT NULL,
    last_used  BIGINT
);
CREATE INDEX team_api_keys_team ON team_api_keys (team_id);

CREATE TABLE hosts (
    id          TEXT PRIMARY KEY,
    cluster_id  TEXT NOT NULL,
    address     TEXT NOT NULL,
    state       TEXT NOT NULL,
    last_seen   BIGINT NOT NULL,
    agent_epoch BIGINT NOT NULL
);

CREATE TABLE generations (
    id         TEXT PRIMARY KEY,
    team_id    TEXT NOT NULL REFERENCES teams (id),
    kind       TEXT NOT NULL,
    parent_id  TEXT REFERENCES generations (id),
    host_id    TEXT REFERENCES hosts (id),
    bytes      BIGINT NOT NULL DEFAULT 0,
    state      TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX generations_team ON generations (team_id);

-- team_id is NULL for the base templates, which every team sees.
CREATE TABLE templates (
    id            TEXT PRIMARY KEY,
    team_id       TEXT REFERENCES teams (id),
    name          TEXT NOT NULL,
    type          TEXT NOT NULL,
    generation_id TEXT REFERENCES generations (id),
    vcpus         INTEGER NOT NULL DEFAULT 0,
    memory_mb     INTEGER NOT NULL DEFAULT 0,
    size_bytes    BIGINT NOT NULL DEFAULT 0,
    default_user  TEXT NOT NULL DEFAULT '',
    created_at    BIGINT NOT NULL,
    UNIQUE (team_id, name)
);
-- NULLs never collide in the constraint above.
CREATE UNIQUE INDEX templates_base_name ON templates (name) WHERE team_id IS NULL;

CREATE TABLE sandboxes (
    id             TEXT PRIMARY KEY,
    team_id        TEXT NOT NULL REFERENCES teams (id),
    host_id        TEXT REFERENCES hosts (id),
    revision       BIGINT NOT NULL DEFAULT 0,
    generation_id  TEXT REFERENCES generations (id),
    status         TEXT NOT NULL,
    state_reason   TEXT NOT NULL DEFAULT '',
    state_message  TEXT NOT NULL DEFAULT '',
    status_since   BIGINT NOT NULL,
    template       TEXT NOT NULL,
    template_id    TEXT NOT NULL,
    vcpus          INTEGER NOT NULL,
    memory_mb      INTEGER NOT NULL,
    timeout_sec    INTEGER NOT NULL DEFAULT 0,
    deadline       BIGINT,
    on_timeout     TEXT NOT NULL DEFAULT 'pause',
    auto_resume    INTEGER NOT NULL DEFAULT 0,
    host_ip        TEXT NOT NULL DEFAULT '',
    metadata       TEXT NOT NULL DEFAULT '{}',
    created_at     BIGINT NOT NULL,
    started_at     BIGINT,
    last_active_at BIGINT,
    last_updated   BIGINT NOT NULL
);
CREATE INDEX sandboxes_team_newest ON sandboxes (team_id, created_at DESC, id DESC);
CREATE INDEX sandboxes_host_status ON sandboxes (host_id, status);

-- Append-only and without a foreign key: it outlives the sandbox's row.
CREATE TABLE events (
    sandbox_id  TEXT NOT NULL,
    seq         BIGINT NOT NULL,
    team_id     TEXT NOT NULL,
    from_status TEXT NOT NULL,
    to_status   TEXT NOT NULL,
    reason      TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    at          BIGINT NOT NULL,
    PRIMARY KEY (sandbox_id, seq)
);

CREATE TABLE idempotency_keys (
    team_id      TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    key          TEXT NOT NULL,
    route        TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status       INTEGER,
    answer       TEXT,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (team_id, route, key)
);

-- +goose Down
DROP TABLE idempotency_keys;
DROP TABLE events;
DROP TABLE sandboxes;
DROP TABLE templates;
DROP TABLE generations;
DROP TABLE hosts;
DROP TABLE team_api_keys;
DROP TABLE users_teams;
DROP TABLE teams;
DROP TABLE users;
