/* SPDX-License-Identifier: Apache-2.0 */
/* Field tables of google/protobuf/descriptor.proto, as far as needed; its enums are read as
 * numbers. */
#include "descriptor.h"

#include "rpc/table.h"

static const struct rpc_field field_fields[] = {
    RPC_FIELD(fd_field, 1, "name", "name", RPC_STRING, name),
    RPC_FIELD(fd_field, 3, "number", "number", RPC_INT32, number),
    RPC_FIELD(fd_field, 4, "label", "label", RPC_INT32, label),
    RPC_FIELD(fd_field, 5, "type", "type", RPC_INT32, type),
    RPC_FIELD(fd_field, 6, "type_name", "typeName", RPC_STRING, type_name),
    RPC_FIELD_OPTIONAL(
        fd_field, 9, "oneof_index", "oneofIndex", RPC_INT32, oneof_index, has_oneof_index),
    RPC_FIELD(fd_field, 10, "json_name", "jsonName", RPC_STRING, json_name),
    RPC_FIELD(fd_field, 17, "proto3_optional", "proto3Optional", RPC_BOOL, proto3_optional),
};
static const struct rpc_message field_message =
    RPC_TABLE("google.protobuf.FieldDescriptorProto", fd_field, field_fields);

static const struct rpc_field options_fields[] = {
    RPC_FIELD(fd_options, 7, "map_entry", "mapEntry", RPC_BOOL, map_entry),
};
static const struct rpc_message options_message =
    RPC_TABLE("google.protobuf.MessageOptions", fd_options, options_fields);

static const struct rpc_message message_message;
static const struct rpc_field message_fields[] = {
    RPC_FIELD(fd_message, 1, "name", "name", RPC_STRING, name),
    RPC_FIELD_MESSAGE_REPEATED(fd_message, 2, "field", "field", field_message, fields),
    RPC_FIELD_MESSAGE_REPEATED(fd_message, 3, "nested_type", "nestedType", message_message, nested),
    RPC_FIELD_MESSAGE(fd_message, 7, "options", "options", fd_options, options_message, options),
};
static const struct rpc_message message_message =
    RPC_TABLE("google.protobuf.DescriptorProto", fd_message, message_fields);

static const struct rpc_field file_fields[] = {
    RPC_FIELD(fd_file, 1, "name", "name", RPC_STRING, name),
    RPC_FIELD(fd_file, 2, "package", "package", RPC_STRING, package),
    RPC_FIELD_MESSAGE_REPEATED(
        fd_file, 4, "message_type", "messageType", message_message, messages),
};
static const struct rpc_message file_message =
    RPC_TABLE("google.protobuf.FileDescriptorProto", fd_file, file_fields);

static const struct rpc_field set_fields[] = {
    RPC_FIELD_MESSAGE_REPEATED(fd_set, 1, "file", "file", file_message, files),
};
const struct rpc_message fd_set_message =
    RPC_TABLE("google.protobuf.FileDescriptorSet", fd_set, set_fields);
