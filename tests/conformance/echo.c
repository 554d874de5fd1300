/* SPDX-License-Identifier: Apache-2.0 */
#include "echo.h"

#include "rpc/table.h"

static const struct rpc_field request_fields[] = {
    RPC_FIELD(echo_request, 1, "text", "text", RPC_STRING, text),
    RPC_FIELD(echo_request, 2, "data", "data", RPC_BYTES, data),
    RPC_FIELD(echo_request, 3, "count", "count", RPC_INT32, count),
    RPC_FIELD(echo_request, 4, "size", "size", RPC_INT32, size),
    RPC_FIELD(echo_request, 5, "delay_ms", "delayMs", RPC_INT32, delay_ms),
    RPC_FIELD(echo_request, 6, "code", "code", RPC_STRING, code),
    RPC_FIELD(echo_request, 7, "tag", "tag", RPC_STRING, tag),
    RPC_FIELD(echo_request, 8, "gated", "gated", RPC_BOOL, gated),
};
const struct rpc_message echo_request_message =
    RPC_TABLE("conformance.Request", echo_request, request_fields);

static const struct rpc_field response_fields[] = {
    RPC_FIELD(echo_response, 1, "text", "text", RPC_STRING, text),
    RPC_FIELD(echo_response, 2, "data", "data", RPC_BYTES, data),
    RPC_FIELD(echo_response, 3, "index", "index", RPC_INT32, index),
    RPC_FIELD(echo_response, 4, "size", "size", RPC_INT64, size),
    RPC_FIELD(echo_response, 5, "timeout_ms", "timeoutMs", RPC_INT64, timeout_ms),
    RPC_FIELD(echo_response, 6, "code", "code", RPC_STRING, code),
};
const struct rpc_message echo_response_message =
    RPC_TABLE("conformance.Response", echo_response, response_fields);
