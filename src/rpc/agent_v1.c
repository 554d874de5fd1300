/* SPDX-License-Identifier: Apache-2.0 */
/* Field tables of torpor.agent.v1.HostAgent; a test holds them against proto/agent.proto. */
#include "rpc/agent_v1.h"

#include "rpc/table.h"

static const struct rpc_field acknowledged_fields[] = {
    RPC_FIELD(agent_acknowledged, 1, "id", "id", RPC_STRING, id),
    RPC_FIELD(agent_acknowledged, 2, "revision", "revision", RPC_UINT64, revision),
};
static const struct rpc_message acknowledged_message =
    RPC_TABLE("torpor.agent.v1.Acknowledged", agent_acknowledged, acknowledged_fields);

static const struct rpc_field capacity_fields[] = {
    RPC_FIELD(agent_capacity, 1, "memory_mb_total", "memoryMbTotal", RPC_INT64, memory_mb_total),
    RPC_FIELD(agent_capacity, 2, "memory_mb_used", "memoryMbUsed", RPC_INT64, memory_mb_used),
    RPC_FIELD(agent_capacity, 3, "slots_total", "slotsTotal", RPC_INT32, slots_total),
    RPC_FIELD(agent_capacity, 4, "slots_used", "slotsUsed", RPC_INT32, slots_used),
    RPC_FIELD(agent_capacity, 5, "disk_free_bytes", "diskFreeBytes", RPC_INT64, disk_free_bytes),
};
static const struct rpc_message capacity_message =
    RPC_TABLE("torpor.agent.v1.Capacity", agent_capacity, capacity_fields);

static const struct rpc_field sandbox_info_fields[] = {
    RPC_FIELD(agent_sandbox_info, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD(agent_sandbox_info, 2, "status", "status", RPC_STRING, status),
    RPC_FIELD(agent_sandbox_info, 3, "template", "template", RPC_STRING, template),
    RPC_FIELD(agent_sandbox_info, 4, "vcpus", "vcpus", RPC_INT32, vcpus),
    RPC_FIELD(agent_sandbox_info, 5, "memory_mb", "memoryMb", RPC_INT32, memory_mb),
    RPC_FIELD(agent_sandbox_info, 6, "host_ip", "hostIp", RPC_STRING, host_ip),
    RPC_FIELD(agent_sandbox_info, 7, "created_at_ms", "createdAtMs", RPC_INT64, created_at_ms),
    RPC_FIELD(
        agent_sandbox_info, 8, "last_active_at_ms", "lastActiveAtMs", RPC_INT64, last_active_at_ms),
    RPC_FIELD(agent_sandbox_info, 9, "timeout_sec", "timeoutSec", RPC_INT32, timeout_sec),
    RPC_FIELD(agent_sandbox_info, 10, "state_reason", "stateReason", RPC_STRING, state_reason),
    RPC_FIELD(agent_sandbox_info, 11, "state_message", "stateMessage", RPC_STRING, state_message),
    RPC_FIELD(agent_sandbox_info, 12, "revision", "revision", RPC_UINT64, revision),
    RPC_FIELD(agent_sandbox_info, 13, "started_at_ms", "startedAtMs", RPC_INT64, started_at_ms),
    RPC_FIELD(
        agent_sandbox_info, 14, "status_since_ms", "statusSinceMs", RPC_INT64, status_since_ms),
    RPC_FIELD(agent_sandbox_info, 15, "generation_id", "generationId", RPC_STRING, generation_id),
    RPC_FIELD(agent_sandbox_info, 16, "snapshot_id", "snapshotId", RPC_STRING, snapshot_id),
};
const struct rpc_message agent_sandbox_info_message =
    RPC_TABLE("torpor.agent.v1.SandboxInfo", agent_sandbox_info, sandbox_info_fields);

static const struct rpc_field create_request_fields[] = {
    RPC_FIELD(agent_create_request, 1, "template", "template", RPC_STRING, template),
    RPC_FIELD(agent_create_request, 2, "vcpus", "vcpus", RPC_INT32, vcpus),
    RPC_FIELD(agent_create_request, 3, "memory_mb", "memoryMb", RPC_INT32, memory_mb),
    RPC_FIELD(agent_create_request, 4, "timeout_sec", "timeoutSec", RPC_INT32, timeout_sec),
    RPC_FIELD(agent_create_request, 5, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD_MAP(agent_create_request, 10, "env", "env", env),
    RPC_FIELD(agent_create_request, 11, "request_id", "requestId", RPC_STRING, request_id),
    RPC_FIELD(agent_create_request, 12, "snapshot_id", "snapshotId", RPC_STRING, snapshot_id),
};
const struct rpc_message agent_create_request_message =
    RPC_TABLE("torpor.agent.v1.CreateSandboxRequest", agent_create_request, create_request_fields);

static const struct rpc_field create_response_fields[] = {
    RPC_FIELD_MESSAGE(agent_create_response, 1, "sandbox", "sandbox", agent_sandbox_info,
        agent_sandbox_info_message, sandbox),
};
const struct rpc_message agent_create_response_message = RPC_TABLE(
    "torpor.agent.v1.CreateSandboxResponse", agent_create_response, create_response_fields);

static const struct rpc_field destroy_request_fields[] = {
    RPC_FIELD(agent_destroy_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD(agent_destroy_request, 2, "request_id", "requestId", RPC_STRING, request_id),
    RPC_FIELD(agent_destroy_request, 3, "expected_revision", "expectedRevision", RPC_UINT64,
        expected_revision),
};
const struct rpc_message agent_destroy_request_message = RPC_TABLE(
    "torpor.agent.v1.DestroySandboxRequest", agent_destroy_request, destroy_request_fields);

static const struct rpc_field destroy_response_fields[] = {
    RPC_FIELD(agent_destroy_response, 1, "revision", "revision", RPC_UINT64, revision),
};
const struct rpc_message agent_destroy_response_message = RPC_TABLE(
    "torpor.agent.v1.DestroySandboxResponse", agent_destroy_response, destroy_response_fields);

static const struct rpc_field list_request_fields[] = {
    RPC_FIELD(agent_list_request, 1, "since_revision", "sinceRevision", RPC_UINT64, since_revision),
    RPC_FIELD_MESSAGE_REPEATED(agent_list_request, 2, "ack_auto_paused", "ackAutoPaused",
        acknowledged_message, ack_auto_paused),
    RPC_FIELD(agent_list_request, 3, "wait_ms", "waitMs", RPC_INT32, wait_ms),
};
const struct rpc_message agent_list_request_message =
    RPC_TABLE("torpor.agent.v1.ListSandboxesRequest", agent_list_request, list_request_fields);

static const struct rpc_field template_info_fields[] = {
    RPC_FIELD(agent_template_info, 1, "name", "name", RPC_STRING, name),
    RPC_FIELD(agent_template_info, 2, "size_bytes", "sizeBytes", RPC_INT64, size_bytes),
    RPC_FIELD(agent_template_info, 3, "default_user", "defaultUser", RPC_STRING, default_user),
    RPC_FIELD(agent_template_info, 4, "building", "building", RPC_BOOL, building),
    RPC_FIELD(agent_template_info, 5, "created_at_ms", "createdAtMs", RPC_INT64, created_at_ms),
    RPC_FIELD(agent_template_info, 6, "digest", "digest", RPC_STRING, digest),
};
const struct rpc_message agent_template_info_message =
    RPC_TABLE("torpor.agent.v1.TemplateInfo", agent_template_info, template_info_fields);

const uint64_t agent_histogram_bounds_us[AGENT_HISTOGRAM_BOUNDS] = {
    1000,
    2500,
    5000,
    10000,
    25000,
    50000,
    100000,
    250000,
    500000,
    1000000,
    2500000,
    5000000,
    10000000,
};
static const struct rpc_field histogram_fields[] = {
    RPC_FIELD(agent_histogram, 1, "name", "name", RPC_STRING, name),
    RPC_FIELD(agent_histogram, 2, "phase", "phase", RPC_STRING, phase),
    RPC_FIELD_REPEATED(agent_histogram, 3, "buckets", "buckets", RPC_UINT64, buckets),
    RPC_FIELD(agent_histogram, 4, "sum_us", "sumUs", RPC_UINT64, sum_us),
    RPC_FIELD(agent_histogram, 5, "count", "count", RPC_UINT64, count),
};
static const struct rpc_message histogram_message =
    RPC_TABLE("torpor.agent.v1.Histogram", agent_histogram, histogram_fields);

static const struct rpc_field list_response_fields[] = {
    RPC_FIELD_MESSAGE_REPEATED(
        agent_list_response, 1, "sandboxes", "sandboxes", agent_sandbox_info_message, sandboxes),
    RPC_FIELD_REPEATED(agent_list_response, 2, "auto_paused_sandbox_ids", "autoPausedSandboxIds",
        RPC_STRING, auto_paused_sandbox_ids),
    RPC_FIELD(agent_list_response, 3, "host_id", "hostId", RPC_STRING, host_id),
    RPC_FIELD(agent_list_response, 4, "cluster_id", "clusterId", RPC_STRING, cluster_id),
    RPC_FIELD(agent_list_response, 5, "agent_epoch", "agentEpoch", RPC_UINT64, agent_epoch),
    RPC_FIELD(agent_list_response, 6, "host_revision", "hostRevision", RPC_UINT64, host_revision),
    RPC_FIELD(agent_list_response, 7, "full", "full", RPC_BOOL, full),
    RPC_FIELD_MESSAGE(
        agent_list_response, 8, "capacity", "capacity", agent_capacity, capacity_message, capacity),
    RPC_FIELD_REPEATED(agent_list_response, 9, "templates", "templates", RPC_STRING, templates),
    RPC_FIELD_MESSAGE_REPEATED(agent_list_response, 10, "base_templates", "baseTemplates",
        agent_template_info_message, base_templates),
    RPC_FIELD_MESSAGE_REPEATED(
        agent_list_response, 11, "histograms", "histograms", histogram_message, histograms),
};
const struct rpc_message agent_list_response_message =
    RPC_TABLE("torpor.agent.v1.ListSandboxesResponse", agent_list_response, list_response_fields);

static const struct rpc_field ping_request_fields[] = {
    RPC_FIELD(agent_ping_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
};
const struct rpc_message agent_ping_request_message =
    RPC_TABLE("torpor.agent.v1.PingSandboxRequest", agent_ping_request, ping_request_fields);

static const struct rpc_field ping_response_fields[] = {
    RPC_FIELD(agent_ping_response, 1, "last_active_at_ms", "lastActiveAtMs", RPC_INT64,
        last_active_at_ms),
};
const struct rpc_message agent_ping_response_message =
    RPC_TABLE("torpor.agent.v1.PingSandboxResponse", agent_ping_response, ping_response_fields);

static const struct rpc_field update_request_fields[] = {
    RPC_FIELD(agent_update_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD_OPTIONAL(agent_update_request, 2, "timeout_sec", "timeoutSec", RPC_INT32, timeout_sec,
        has_timeout_sec),
    RPC_FIELD(agent_update_request, 3, "request_id", "requestId", RPC_STRING, request_id),
};
const struct rpc_message agent_update_request_message =
    RPC_TABLE("torpor.agent.v1.UpdateSandboxRequest", agent_update_request, update_request_fields);

static const struct rpc_field update_response_fields[] = {
    RPC_FIELD_MESSAGE(agent_update_response, 1, "sandbox", "sandbox", agent_sandbox_info,
        agent_sandbox_info_message, sandbox),
};
const struct rpc_message agent_update_response_message = RPC_TABLE(
    "torpor.agent.v1.UpdateSandboxResponse", agent_update_response, update_response_fields);

static const struct rpc_field phase_fields[] = {
    RPC_FIELD(agent_phase, 1, "name", "name", RPC_STRING, name),
    RPC_FIELD(agent_phase, 2, "duration_us", "durationUs", RPC_INT64, duration_us),
};
static const struct rpc_message phase_message =
    RPC_TABLE("torpor.agent.v1.Phase", agent_phase, phase_fields);

static const struct rpc_field pause_request_fields[] = {
    RPC_FIELD(agent_pause_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD(agent_pause_request, 2, "request_id", "requestId", RPC_STRING, request_id),
    RPC_FIELD(agent_pause_request, 3, "expected_revision", "expectedRevision", RPC_UINT64,
        expected_revision),
};
const struct rpc_message agent_pause_request_message =
    RPC_TABLE("torpor.agent.v1.PauseSandboxRequest", agent_pause_request, pause_request_fields);

static const struct rpc_field pause_response_fields[] = {
    RPC_FIELD_MESSAGE(agent_pause_response, 1, "sandbox", "sandbox", agent_sandbox_info,
        agent_sandbox_info_message, sandbox),
    RPC_FIELD_MESSAGE_REPEATED(agent_pause_response, 2, "phases", "phases", phase_message, phases),
};
const struct rpc_message agent_pause_response_message =
    RPC_TABLE("torpor.agent.v1.PauseSandboxResponse", agent_pause_response, pause_response_fields);

static const struct rpc_field resume_request_fields[] = {
    RPC_FIELD(agent_resume_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD_OPTIONAL(agent_resume_request, 2, "timeout_sec", "timeoutSec", RPC_INT32, timeout_sec,
        has_timeout_sec),
    RPC_FIELD(agent_resume_request, 3, "from", "from", RPC_STRING, from),
    RPC_FIELD(agent_resume_request, 4, "mode", "mode", RPC_STRING, mode),
    RPC_FIELD(agent_resume_request, 5, "request_id", "requestId", RPC_STRING, request_id),
    RPC_FIELD(agent_resume_request, 6, "expected_revision", "expectedRevision", RPC_UINT64,
        expected_revision),
};
const struct rpc_message agent_resume_request_message =
    RPC_TABLE("torpor.agent.v1.ResumeSandboxRequest", agent_resume_request, resume_request_fields);

static const struct rpc_field resume_response_fields[] = {
    RPC_FIELD_MESSAGE(agent_resume_response, 1, "sandbox", "sandbox", agent_sandbox_info,
        agent_sandbox_info_message, sandbox),
    RPC_FIELD_MESSAGE_REPEATED(agent_resume_response, 2, "phases", "phases", phase_message, phases),
};
const struct rpc_message agent_resume_response_message = RPC_TABLE(
    "torpor.agent.v1.ResumeSandboxResponse", agent_resume_response, resume_response_fields);

static const struct rpc_field snapshot_info_fields[] = {
    RPC_FIELD(agent_snapshot_info, 1, "snapshot_id", "snapshotId", RPC_STRING, snapshot_id),
    RPC_FIELD(agent_snapshot_info, 2, "generation_id", "generationId", RPC_STRING, generation_id),
    RPC_FIELD(agent_snapshot_info, 3, "vcpus", "vcpus", RPC_INT32, vcpus),
    RPC_FIELD(agent_snapshot_info, 4, "memory_mb", "memoryMb", RPC_INT32, memory_mb),
    RPC_FIELD(agent_snapshot_info, 5, "size_bytes", "sizeBytes", RPC_INT64, size_bytes),
    RPC_FIELD(agent_snapshot_info, 6, "default_user", "defaultUser", RPC_STRING, default_user),
    RPC_FIELD(agent_snapshot_info, 7, "created_at_ms", "createdAtMs", RPC_INT64, created_at_ms),
};
const struct rpc_message agent_snapshot_info_message =
    RPC_TABLE("torpor.agent.v1.SnapshotInfo", agent_snapshot_info, snapshot_info_fields);

static const struct rpc_field create_snapshot_request_fields[] = {
    RPC_FIELD(agent_create_snapshot_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD(
        agent_create_snapshot_request, 2, "snapshot_id", "snapshotId", RPC_STRING, snapshot_id),
    RPC_FIELD(agent_create_snapshot_request, 3, "request_id", "requestId", RPC_STRING, request_id),
    RPC_FIELD(agent_create_snapshot_request, 4, "expected_revision", "expectedRevision", RPC_UINT64,
        expected_revision),
};
const struct rpc_message agent_create_snapshot_request_message =
    RPC_TABLE("torpor.agent.v1.CreateSnapshotRequest", agent_create_snapshot_request,
        create_snapshot_request_fields);

static const struct rpc_field create_snapshot_response_fields[] = {
    RPC_FIELD_MESSAGE(agent_create_snapshot_response, 1, "snapshot", "snapshot",
        agent_snapshot_info, agent_snapshot_info_message, snapshot),
    RPC_FIELD_MESSAGE(agent_create_snapshot_response, 2, "sandbox", "sandbox", agent_sandbox_info,
        agent_sandbox_info_message, sandbox),
    RPC_FIELD_MESSAGE_REPEATED(
        agent_create_snapshot_response, 3, "phases", "phases", phase_message, phases),
};
const struct rpc_message agent_create_snapshot_response_message =
    RPC_TABLE("torpor.agent.v1.CreateSnapshotResponse", agent_create_snapshot_response,
        create_snapshot_response_fields);

static const struct rpc_field delete_snapshot_request_fields[] = {
    RPC_FIELD(
        agent_delete_snapshot_request, 1, "snapshot_id", "snapshotId", RPC_STRING, snapshot_id),
    RPC_FIELD(agent_delete_snapshot_request, 2, "request_id", "requestId", RPC_STRING, request_id),
};
const struct rpc_message agent_delete_snapshot_request_message =
    RPC_TABLE("torpor.agent.v1.DeleteSnapshotRequest", agent_delete_snapshot_request,
        delete_snapshot_request_fields);

const struct rpc_message agent_delete_snapshot_response_message =
    RPC_TABLE_EMPTY("torpor.agent.v1.DeleteSnapshotResponse", agent_delete_snapshot_response);

static const struct rpc_field exec_request_fields[] = {
    RPC_FIELD(agent_exec_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD(agent_exec_request, 2, "cmd", "cmd", RPC_STRING, cmd),
    RPC_FIELD_REPEATED(agent_exec_request, 3, "args", "args", RPC_STRING, args),
    RPC_FIELD(agent_exec_request, 4, "timeout_sec", "timeoutSec", RPC_INT32, timeout_sec),
    RPC_FIELD_MAP(agent_exec_request, 5, "env", "env", env),
    RPC_FIELD(agent_exec_request, 6, "cwd", "cwd", RPC_STRING, cwd),
    RPC_FIELD(agent_exec_request, 7, "user", "user", RPC_STRING, user),
    RPC_FIELD(agent_exec_request, 8, "stdin", "stdin", RPC_BYTES, stdin_bytes),
};
const struct rpc_message agent_exec_request_message =
    RPC_TABLE("torpor.agent.v1.ExecRequest", agent_exec_request, exec_request_fields);

static const struct rpc_field exec_response_fields[] = {
    RPC_FIELD(agent_exec_response, 1, "stdout", "stdout", RPC_BYTES, stdout_bytes),
    RPC_FIELD(agent_exec_response, 2, "stderr", "stderr", RPC_BYTES, stderr_bytes),
    RPC_FIELD(agent_exec_response, 3, "exit_code", "exitCode", RPC_INT32, exit_code),
    RPC_FIELD(agent_exec_response, 4, "signal", "signal", RPC_STRING, signal),
    RPC_FIELD(agent_exec_response, 5, "timed_out", "timedOut", RPC_BOOL, timed_out),
    RPC_FIELD(agent_exec_response, 6, "truncated", "truncated", RPC_BOOL, truncated),
    RPC_FIELD(agent_exec_response, 7, "duration_ms", "durationMs", RPC_INT64, duration_ms),
    RPC_FIELD(agent_exec_response, 8, "paused", "paused", RPC_BOOL, paused),
    RPC_FIELD(agent_exec_response, 9, "pid", "pid", RPC_INT32, pid),
    RPC_FIELD(agent_exec_response, 10, "tag", "tag", RPC_STRING, tag),
};
const struct rpc_message agent_exec_response_message =
    RPC_TABLE("torpor.agent.v1.ExecResponse", agent_exec_response, exec_response_fields);

static const struct rpc_field read_file_request_fields[] = {
    RPC_FIELD(agent_read_file_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD(agent_read_file_request, 2, "path", "path", RPC_STRING, path),
    RPC_FIELD(agent_read_file_request, 3, "user", "user", RPC_STRING, user),
};
const struct rpc_message agent_read_file_request_message =
    RPC_TABLE("torpor.agent.v1.ReadFileRequest", agent_read_file_request, read_file_request_fields);

static const struct rpc_field read_file_response_fields[] = {
    RPC_FIELD(agent_read_file_response, 1, "content", "content", RPC_BYTES, content),
};
const struct rpc_message agent_read_file_response_message = RPC_TABLE(
    "torpor.agent.v1.ReadFileResponse", agent_read_file_response, read_file_response_fields);

static const struct rpc_field write_file_request_fields[] = {
    RPC_FIELD(agent_write_file_request, 1, "sandbox_id", "sandboxId", RPC_STRING, sandbox_id),
    RPC_FIELD(agent_write_file_request, 2, "path", "path", RPC_STRING, path),
    RPC_FIELD(agent_write_file_request, 3, "content", "content", RPC_BYTES, content),
    RPC_FIELD(agent_write_file_request, 4, "user", "user", RPC_STRING, user),
    RPC_FIELD_OPTIONAL(agent_write_file_request, 5, "mode", "mode", RPC_UINT32, mode, has_mode),
};
const struct rpc_message agent_write_file_request_message = RPC_TABLE(
    "torpor.agent.v1.WriteFileRequest", agent_write_file_request, write_file_request_fields);

const struct rpc_message agent_write_file_response_message =
    RPC_TABLE_EMPTY("torpor.agent.v1.WriteFileResponse", agent_write_file_response);
