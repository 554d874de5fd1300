/* SPDX-License-Identifier: Apache-2.0 */
/* What passes between the store and its users. Times are milliseconds since 1970, 0 for none. */
#ifndef TORPOR_CONTROL_STORE_ROWS_H
#define TORPOR_CONTROL_STORE_ROWS_H

#include "base/err.h"
#include "proto/limits.h"
#include "proto/sandbox.h"

enum {
    KEY_HASH_HEX = 64,   /* SHA-256 in hex */
    KEY_PREFIX_MAX = 16, /* what a person recognises a key by */
    KEY_NAME_MAX = 64,
    HOST_IP_MAX = 45, /* INET6_ADDRSTRLEN without its NUL */
    CLUSTER_ID_MAX = 64,
    GENERATION_ID_MAX = 36, /* a UUID's text */
    TEMPLATE_USER_MAX = 32,
};

struct team_row {
    struct team_id id;
    const char *name;
    int64_t created_at_ms;
};

struct key_row {
    struct key_id id;
    struct team_id team;
    char name[KEY_NAME_MAX + 1];
    char hash_hex[KEY_HASH_HEX + 1];
    char prefix[KEY_PREFIX_MAX + 1];
    int64_t created_at_ms;
};

struct key_owner {
    struct key_id key;
    struct team_id team;
};

struct host_row {
    struct host_id id;
    char cluster_id[CLUSTER_ID_MAX + 1];
    const char *address; /* not read back */
    int64_t last_seen_ms;
    uint64_t agent_epoch;
};

/* A snapshot: a frozen machine of a team that sandboxes are made from. */
struct template_row {
    struct template_id id;
    struct team_id team;
    struct host_id host; /* where its bytes are */
    char name[LIMIT_NAME_MAX + 1];
    char generation[GENERATION_ID_MAX + 1]; /* empty: the host did not say */
    int vcpus;
    int memory_mb;
    int64_t size_bytes; /* as really allocated there */
    char default_user[TEMPLATE_USER_MAX + 1];
    int64_t created_at_ms;
};

struct template_rows {
    struct template_row *rows;
    size_t n;
};

struct template_query {
    struct team_id team;
    int64_t before_created_ms; /* 0: from the newest; else rows older than (this, before_id) */
    struct template_id before_id;
    size_t limit;
};

/* Bytes that no template stands for. */
struct snapshot_removal {
    struct template_id id;
    struct host_id host;
    int64_t not_before_ms; /* they may be in the making until then; 0: remove now */
};

enum { REMOVALS_DUE_MAX = 32 };
struct removals_due {
    struct template_id ids[REMOVALS_DUE_MAX];
    size_t n;
};

struct sandbox_row {
    struct sandbox_id id;
    struct team_id team;
    struct host_id host; /* empty: none yet */
    uint64_t revision;   /* the agent's; 0 before it has answered */
    enum sandbox_status status;
    enum sandbox_reason reason;
    char message[ERR_MSG_MAX];
    int64_t status_since_ms;
    char template[LIMIT_NAME_MAX + 1];
    struct template_id template_id;
    int vcpus;
    int memory_mb;
    int timeout_sec;
    char host_ip[HOST_IP_MAX + 1];
    struct slice metadata; /* a JSON object of strings; in the arena when read */
    int64_t created_at_ms;
    int64_t started_at_ms;
    int64_t last_active_at_ms;
    int64_t last_updated_ms;
};

struct sandbox_list {
    struct sandbox_row *rows;
    size_t n;
    bool more; /* there are older ones behind the last */
};

struct sandbox_query {
    struct team_id team;
    bool statuses[SANDBOX_STATUS_COUNT];
    struct slice template;     /* name or id; empty: any */
    struct slice metadata;     /* JSON object of the pairs that all must be there; empty: any */
    int64_t before_created_ms; /* 0: from the newest; else rows older than (this, before_id) */
    struct sandbox_id before_id;
    size_t limit;
};

struct sandbox_change {
    enum sandbox_status status;
    enum sandbox_reason reason;
    const char *message;   /* NULL: none */
    uint64_t revision;     /* 0: a decision of our own, keeps the row's */
    int64_t at_ms;         /* becomes status_since */
    int64_t started_at_ms; /* 0: as it was; so are the others */
    int64_t last_active_at_ms;
    int vcpus;
    int memory_mb;
    const char *host_ip;    /* NULL: as it was */
    const char *request_id; /* for the event; NULL: none */
};

struct sandbox_patch {
    bool has_timeout_sec;
    int timeout_sec;
    struct slice metadata; /* the whole new object; p NULL: as it was */
    int64_t at_ms;
};

struct touch {
    char id[ID_TEXT_MAX + 1]; /* of a sandbox or a key */
    int64_t at_ms;
};

struct event_row {
    uint64_t seq;
    char from[16]; /* empty for the first */
    char to[16];
    char reason[24];
    char request_id[LIMIT_REQUEST_ID_MAX + 1];
    int64_t at_ms;
};

struct event_list {
    struct event_row *rows;
    size_t n;
};

#endif
