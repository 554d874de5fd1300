/* SPDX-License-Identifier: Apache-2.0 */
/* As much of google.protobuf.FileDescriptorSet as the table test compares, for our own decoder. */
#ifndef TORPOR_TESTS_RPC_DESCRIPTOR_H
#define TORPOR_TESTS_RPC_DESCRIPTOR_H

#include "rpc/message.h"

/* FieldDescriptorProto.Type and .Label. */
enum {
    FD_DOUBLE = 1,
    FD_INT64 = 3,
    FD_UINT64 = 4,
    FD_INT32 = 5,
    FD_BOOL = 8,
    FD_STRING = 9,
    FD_MESSAGE = 11,
    FD_BYTES = 12,
    FD_UINT32 = 13,
    FD_ENUM = 14,
    FD_SINT32 = 17,
    FD_LABEL_REPEATED = 3
};

struct fd_field {
    struct slice name;
    int32_t number;
    int32_t label;
    int32_t type;
    struct slice type_name; /* ".package.Message" */
    int32_t oneof_index;
    bool has_oneof_index;
    struct slice json_name;
    bool proto3_optional;
};
struct fd_options {
    bool map_entry;
};
struct fd_message {
    struct slice name;
    struct rpc_list fields; /* struct fd_field * */
    struct rpc_list nested; /* struct fd_message * */
    struct fd_options *options;
};
struct fd_file {
    struct slice name;
    struct slice package;
    struct rpc_list messages; /* struct fd_message * */
};
struct fd_set {
    struct rpc_list files; /* struct fd_file * */
};

extern const struct rpc_message fd_set_message;

#endif
