/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Macros to write a field table. Each checks at compile time that the member has the C type which
 * its protobuf type asks for, so that a table cannot make a codec write over a neighbour.
 */
#ifndef TORPOR_RPC_TABLE_H
#define TORPOR_RPC_TABLE_H

#include <stddef.h>

#include "rpc/message.h"

#define RPC_CTYPE_RPC_BOOL bool
#define RPC_CTYPE_RPC_INT32 int32_t
#define RPC_CTYPE_RPC_SINT32 int32_t
#define RPC_CTYPE_RPC_INT64 int64_t
#define RPC_CTYPE_RPC_UINT32 uint32_t
#define RPC_CTYPE_RPC_UINT64 uint64_t
#define RPC_CTYPE_RPC_DOUBLE double
#define RPC_CTYPE_RPC_STRING struct slice
#define RPC_CTYPE_RPC_BYTES struct slice

#define RPC_OFFSET(S, member, ctype)                                                               \
    (offsetof(struct S, member) +                                                                  \
        0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((struct S *)0)->member), ctype)   \
                            ? 1                                                                    \
                            : -1]))

/* A singular scalar, string or bytes. */
#define RPC_FIELD(S, num, fname, jname, ftype, member)                                             \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = ftype,                     \
        .offset = RPC_OFFSET(S, member, RPC_CTYPE_##ftype)                                         \
    }
#define RPC_FIELD_OPTIONAL(S, num, fname, jname, ftype, member, has)                               \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = ftype,                     \
        .label = RPC_OPTIONAL, .offset = RPC_OFFSET(S, member, RPC_CTYPE_##ftype),                 \
        .presence = RPC_OFFSET(S, has, bool)                                                       \
    }
#define RPC_FIELD_ONEOF(S, num, fname, jname, ftype, member, has, which)                           \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = ftype, .label = RPC_ONEOF, \
        .offset = RPC_OFFSET(S, member, RPC_CTYPE_##ftype), .presence = RPC_OFFSET(S, has, bool),  \
        .oneof = (which)                                                                           \
    }
#define RPC_FIELD_REPEATED(S, num, fname, jname, ftype, member)                                    \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = ftype,                     \
        .label = RPC_REPEATED, .offset = RPC_OFFSET(S, member, struct rpc_list)                    \
    }
/* A singular enum; `vals` is its table of names, ended by a NULL name. */
#define RPC_FIELD_ENUM(S, num, fname, jname, vals, member)                                         \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = RPC_ENUM,                  \
        .offset = RPC_OFFSET(S, member, int32_t), .values = (vals)                                 \
    }
/* map<string, string> */
#define RPC_FIELD_MAP(S, num, fname, jname, member)                                                \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = RPC_MAP,                   \
        .offset = RPC_OFFSET(S, member, struct rpc_list)                                           \
    }
/* `T` is the struct of the inner message, `M` its table. */
#define RPC_FIELD_MESSAGE(S, num, fname, jname, T, M, member)                                      \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = RPC_MESSAGE,               \
        .offset = RPC_OFFSET(S, member, struct T *), .message = &(M)                               \
    }
#define RPC_FIELD_MESSAGE_ONEOF(S, num, fname, jname, T, M, member, has, which)                    \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = RPC_MESSAGE,               \
        .label = RPC_ONEOF, .offset = RPC_OFFSET(S, member, struct T *),                           \
        .presence = RPC_OFFSET(S, has, bool), .oneof = (which), .message = &(M)                    \
    }
#define RPC_FIELD_MESSAGE_REPEATED(S, num, fname, jname, M, member)                                \
    {                                                                                              \
        .number = (num), .name = (fname), .json_name = (jname), .type = RPC_MESSAGE,               \
        .label = RPC_REPEATED, .offset = RPC_OFFSET(S, member, struct rpc_list), .message = &(M)   \
    }

#define RPC_TABLE(full_name, S, table)                                                             \
    {                                                                                              \
        .name = (full_name), .size = sizeof(struct S), .fields = (table),                          \
        .n_fields = sizeof(table) / sizeof((table)[0])                                             \
    }
#define RPC_TABLE_EMPTY(full_name, S)                                                              \
    {                                                                                              \
        .name = (full_name), .size = sizeof(struct S)                                              \
    }

#endif
