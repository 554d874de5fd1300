/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of process.Process; proto/process.proto is the contract and says what they mean. */
#ifndef TORPOR_RPC_PROCESS_V1_H
#define TORPOR_RPC_PROCESS_V1_H

#include "rpc/message.h"

#define PROCESS_V1_PATH(method) "/process.Process/" method

struct process_config {
    struct slice cmd;
    struct rpc_list args; /* struct slice */
    struct rpc_list envs; /* struct rpc_entry */
    struct slice cwd;
    bool has_cwd;
};
struct process_start_request {
    struct process_config *process;
    struct slice tag;
    bool has_tag;
    bool stdin_open; /* field "stdin" */
    bool has_stdin_open;
    struct slice stdin_data;
    bool has_stdin_data;
};
struct process_start_event {
    uint32_t pid;
};
struct process_data_event {
    struct slice stdout_bytes, stderr_bytes, pty_bytes;
    bool has_stdout, has_stderr, has_pty; /* a oneof */
};
struct process_end_event {
    int32_t exit_code;
    bool exited;
    struct slice status;
    struct slice error;
    bool has_error;
    uint32_t signal;
    bool timed_out;
};
struct process_keepalive {
    char unused; /* the message has no fields */
};
struct process_event {
    struct process_start_event *start;
    struct process_data_event *data;
    struct process_end_event *end;
    struct process_keepalive *keepalive;
    bool has_start, has_data, has_end, has_keepalive; /* a oneof */
};
struct process_start_response {
    struct process_event *event;
};

extern const struct rpc_message process_start_request_message, process_start_response_message;

#endif
