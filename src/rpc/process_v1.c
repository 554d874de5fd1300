/* SPDX-License-Identifier: Apache-2.0 */
/* Field tables of process.Process; a test holds them against proto/process.proto. */
#include "rpc/process_v1.h"

#include "rpc/table.h"

static const struct rpc_field config_fields[] = {
    RPC_FIELD(process_config, 1, "cmd", "cmd", RPC_STRING, cmd),
    RPC_FIELD_REPEATED(process_config, 2, "args", "args", RPC_STRING, args),
    RPC_FIELD_MAP(process_config, 3, "envs", "envs", envs),
    RPC_FIELD_OPTIONAL(process_config, 4, "cwd", "cwd", RPC_STRING, cwd, has_cwd),
};
static const struct rpc_message config_message =
    RPC_TABLE("process.ProcessConfig", process_config, config_fields);

static const struct rpc_field start_request_fields[] = {
    RPC_FIELD_MESSAGE(
        process_start_request, 1, "process", "process", process_config, config_message, process),
    RPC_FIELD_OPTIONAL(process_start_request, 3, "tag", "tag", RPC_STRING, tag, has_tag),
    RPC_FIELD_OPTIONAL(
        process_start_request, 4, "stdin", "stdin", RPC_BOOL, stdin_open, has_stdin_open),
    RPC_FIELD_OPTIONAL(process_start_request, 1000, "stdin_data", "stdinData", RPC_BYTES,
        stdin_data, has_stdin_data),
};
const struct rpc_message process_start_request_message =
    RPC_TABLE("process.StartRequest", process_start_request, start_request_fields);

static const struct rpc_field start_event_fields[] = {
    RPC_FIELD(process_start_event, 1, "pid", "pid", RPC_UINT32, pid),
};
static const struct rpc_message start_event_message =
    RPC_TABLE("process.ProcessEvent.StartEvent", process_start_event, start_event_fields);

static const struct rpc_field data_event_fields[] = {
    RPC_FIELD_ONEOF(
        process_data_event, 1, "stdout", "stdout", RPC_BYTES, stdout_bytes, has_stdout, 0),
    RPC_FIELD_ONEOF(
        process_data_event, 2, "stderr", "stderr", RPC_BYTES, stderr_bytes, has_stderr, 0),
    RPC_FIELD_ONEOF(process_data_event, 3, "pty", "pty", RPC_BYTES, pty_bytes, has_pty, 0),
};
static const struct rpc_message data_event_message =
    RPC_TABLE("process.ProcessEvent.DataEvent", process_data_event, data_event_fields);

static const struct rpc_field end_event_fields[] = {
    RPC_FIELD(process_end_event, 1, "exit_code", "exitCode", RPC_SINT32, exit_code),
    RPC_FIELD(process_end_event, 2, "exited", "exited", RPC_BOOL, exited),
    RPC_FIELD(process_end_event, 3, "status", "status", RPC_STRING, status),
    RPC_FIELD_OPTIONAL(process_end_event, 4, "error", "error", RPC_STRING, error, has_error),
    RPC_FIELD(process_end_event, 1000, "signal", "signal", RPC_UINT32, signal),
    RPC_FIELD(process_end_event, 1001, "timed_out", "timedOut", RPC_BOOL, timed_out),
};
static const struct rpc_message end_event_message =
    RPC_TABLE("process.ProcessEvent.EndEvent", process_end_event, end_event_fields);

static const struct rpc_message keepalive_message =
    RPC_TABLE_EMPTY("process.ProcessEvent.KeepAlive", process_keepalive);

static const struct rpc_field event_fields[] = {
    RPC_FIELD_MESSAGE_ONEOF(process_event, 1, "start", "start", process_start_event,
        start_event_message, start, has_start, 0),
    RPC_FIELD_MESSAGE_ONEOF(process_event, 2, "data", "data", process_data_event,
        data_event_message, data, has_data, 0),
    RPC_FIELD_MESSAGE_ONEOF(
        process_event, 3, "end", "end", process_end_event, end_event_message, end, has_end, 0),
    RPC_FIELD_MESSAGE_ONEOF(process_event, 4, "keepalive", "keepalive", process_keepalive,
        keepalive_message, keepalive, has_keepalive, 0),
};
static const struct rpc_message event_message =
    RPC_TABLE("process.ProcessEvent", process_event, event_fields);

static const struct rpc_field start_response_fields[] = {
    RPC_FIELD_MESSAGE(
        process_start_response, 1, "event", "event", process_event, event_message, event),
};
const struct rpc_message process_start_response_message =
    RPC_TABLE("process.StartResponse", process_start_response, start_response_fields);
