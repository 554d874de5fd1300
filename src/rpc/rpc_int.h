/* SPDX-License-Identifier: Apache-2.0 */
/* What the two codecs, the server and the client share; nobody else includes this. */
#ifndef TORPOR_RPC_INT_H
#define TORPOR_RPC_INT_H

#include "rpc/message.h"

enum { RPC_MESSAGE_DEPTH_MAX = 32 }; /* messages in messages; ours need 4 */

/* Where the value of a field lies. */
static inline void *rpc_at(const struct rpc_field *f, void *msg)
{
    return (char *)msg + f->offset;
}

static inline const void *rpc_at_const(const struct rpc_field *f, const void *msg)
{
    return (const char *)msg + f->offset;
}

static inline bool rpc_is_list(const struct rpc_field *f)
{
    return f->label == RPC_REPEATED || f->type == RPC_MAP;
}

/* Bytes of one value (of one item, for lists). */
size_t rpc_value_size(enum rpc_type type);

/* Everything absent: zeroed, but strings and bytes are "" and not NULL. */
void rpc_clear(const struct rpc_message *m, void *msg);

/* Whether an encoder writes the field: presence where there is one, else not the default value. */
bool rpc_is_set(const struct rpc_field *f, const void *msg);

/* Notes that a field was decoded. Of a oneof, the other members become absent. */
void rpc_mark_set(const struct rpc_message *m, const struct rpc_field *f, void *msg);

/* The member of the field's oneof that is set; NULL when none is or the field is in no oneof. */
const struct rpc_field *rpc_oneof_set(
    const struct rpc_message *m, const struct rpc_field *f, const void *msg);

/* A new zeroed item at the end of the list; NULL with ERR_TOO_LARGE when the arena is full. */
void *rpc_list_append(struct rpc_list *l, enum rpc_type type, struct arena *a, struct err *e);

/* A new cleared message; NULL with ERR_TOO_LARGE. */
void *rpc_new_message(const struct rpc_message *m, struct arena *a, struct err *e);

/* Puts the field's name before the path that a failed inner message has left in `where`. Returns
 * -1. */
int rpc_err_within(const struct rpc_field *f, struct err *e);

int rpc_arena_full(struct err *e);

int rpc_json_decode(
    const struct rpc_message *m, struct slice bytes, struct arena *a, void *msg, struct err *e);
int rpc_json_encode(const struct rpc_message *m, const void *msg, struct buf *out, struct err *e);
int rpc_proto_decode(
    const struct rpc_message *m, struct slice bytes, struct arena *a, void *msg, struct err *e);
int rpc_proto_encode(const struct rpc_message *m, const void *msg, struct buf *out, struct err *e);

#endif
