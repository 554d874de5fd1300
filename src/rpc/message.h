/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages as C structs described by field tables; one table drives the JSON codec (proto3 JSON
 * mapping) and the protobuf codec. The .proto files are the contract.
 *
 * How a field lies in its struct, by type and label:
 *   scalars          bool, int32_t, int64_t, uint32_t, uint64_t, double; enums are int32_t
 *   string, bytes    struct slice (strings are valid UTF-8; decoded ones have a NUL behind them
 *                    and are "", not NULL, when absent)
 *   message          pointer to the struct, NULL when absent
 *   optional         as above, and a bool at `presence`
 *   oneof member     as above, and a bool at `presence`; at most one of a oneof is set
 *   repeated         struct rpc_list of such values (pointers for messages)
 *   map<string,string>  struct rpc_list of struct rpc_entry
 * Decoded messages live in the arena given; encoding reads only.
 */
#ifndef TORPOR_RPC_MESSAGE_H
#define TORPOR_RPC_MESSAGE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum rpc_type {
    RPC_BOOL,
    RPC_INT32,
    RPC_SINT32,
    RPC_INT64,
    RPC_UINT32,
    RPC_UINT64,
    RPC_DOUBLE,
    RPC_STRING,
    RPC_BYTES,
    RPC_ENUM,
    RPC_MESSAGE,
    RPC_MAP
};

enum rpc_label { RPC_SINGULAR, RPC_OPTIONAL, RPC_ONEOF, RPC_REPEATED };

struct rpc_list {
    void *items;
    size_t n;
};

struct rpc_entry {
    struct slice key;
    struct slice value;
};

struct rpc_enum_value {
    int32_t number;
    const char *name;
};

struct rpc_field {
    uint32_t number;
    const char *name;      /* as in the .proto file */
    const char *json_name; /* lowerCamelCase */
    enum rpc_type type;
    enum rpc_label label;
    size_t offset;
    size_t presence;                   /* offset of the bool; optional and oneof only */
    int oneof;                         /* which oneof of the message, from 0; oneof members only */
    const struct rpc_message *message; /* RPC_MESSAGE */
    const struct rpc_enum_value *values; /* RPC_ENUM, ended by a NULL name */
};

struct rpc_message {
    const char *name;               /* full name, package included */
    size_t size;                    /* of the struct */
    const struct rpc_field *fields; /* ascending numbers */
    size_t n_fields;
};

enum rpc_codec { RPC_CODEC_JSON, RPC_CODEC_PROTO };

/* Decodes into `msg` (m->size bytes, zeroed here). Unknown fields are skipped, as the protocol
 * says. JSON accepts both spellings of a name, 64-bit numbers as strings or numbers, base64 in both
 * alphabets. Errors: ERR_INVALID naming the field, ERR_TOO_LARGE when the arena is full. */
int rpc_decode(const struct rpc_message *m, enum rpc_codec codec, struct slice bytes,
    struct arena *a, void *msg, struct err *e);
/* Appends. Default values are left out, but for optional and oneof members that are set.
 * ERR_INVALID for a string that is not UTF-8, ERR_TOO_LARGE beyond the buffer's bound. */
int rpc_encode(const struct rpc_message *m, enum rpc_codec codec, const void *msg, struct buf *out,
    struct err *e);

/* Connect error codes: "not_found" etc. (connectrpc.com/docs/protocol). */
const char *rpc_code_from_kind(enum err_kind kind);
enum err_kind rpc_kind_from_code(struct slice code);
/* HTTP status of a Connect code for unary calls. */
int rpc_http_status_from_code(const char *code);

#endif
