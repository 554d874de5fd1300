/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of torpor.agent.v1.HostAgent; proto/agent.proto is the contract and says what they mean.
 */
#ifndef TORPOR_RPC_AGENT_V1_H
#define TORPOR_RPC_AGENT_V1_H

#include "rpc/message.h"

#define AGENT_V1_PATH(method) "/torpor.agent.v1.HostAgent/" method

struct agent_sandbox_info {
    struct slice sandbox_id;
    struct slice status;
    struct slice template;
    int32_t vcpus;
    int32_t memory_mb;
    struct slice host_ip;
    int64_t created_at_ms;
    int64_t last_active_at_ms;
    int32_t timeout_sec;
    struct slice state_reason;
    struct slice state_message;
    uint64_t revision;
    int64_t started_at_ms;
    int64_t status_since_ms;
    struct slice generation_id;
    struct slice snapshot_id;
};
struct agent_create_request {
    struct slice template;
    int32_t vcpus;
    int32_t memory_mb;
    int32_t timeout_sec;
    struct slice sandbox_id;
    struct rpc_list env; /* struct rpc_entry */
    struct slice request_id;
    struct slice snapshot_id;
};
struct agent_create_response {
    struct agent_sandbox_info *sandbox;
};
struct agent_destroy_request {
    struct slice sandbox_id;
    struct slice request_id;
    uint64_t expected_revision;
};
struct agent_destroy_response {
    uint64_t revision;
};
struct agent_acknowledged {
    struct slice id;
    uint64_t revision;
};
struct agent_list_request {
    uint64_t since_revision;
    struct rpc_list ack_auto_paused; /* struct agent_acknowledged * */
    int32_t wait_ms;
};
struct agent_capacity {
    int64_t memory_mb_total;
    int64_t memory_mb_used;
    int32_t slots_total;
    int32_t slots_used;
    int64_t disk_free_bytes;
};
struct agent_list_response {
    struct rpc_list sandboxes;               /* struct agent_sandbox_info * */
    struct rpc_list auto_paused_sandbox_ids; /* struct slice */
    struct slice host_id;
    struct slice cluster_id;
    uint64_t agent_epoch;
    uint64_t host_revision;
    bool full;
    struct agent_capacity *capacity;
    struct rpc_list templates;      /* struct slice */
    struct rpc_list base_templates; /* struct agent_template_info * */
    struct rpc_list histograms;     /* struct agent_histogram * */
};
struct agent_histogram {
    struct slice name;
    struct slice phase;
    struct rpc_list buckets; /* uint64_t, AGENT_HISTOGRAM_BUCKETS of them */
    uint64_t sum_us;
    uint64_t count;
};
/* The upper bounds of the buckets in microseconds; the last bucket has none. */
enum { AGENT_HISTOGRAM_BOUNDS = 13, AGENT_HISTOGRAM_BUCKETS = AGENT_HISTOGRAM_BOUNDS + 1 };
extern const uint64_t agent_histogram_bounds_us[AGENT_HISTOGRAM_BOUNDS];
struct agent_template_info {
    struct slice name;
    int64_t size_bytes;
    struct slice default_user;
    bool building;
    int64_t created_at_ms;
    struct slice digest;
};
struct agent_ping_request {
    struct slice sandbox_id;
};
struct agent_ping_response {
    int64_t last_active_at_ms;
};
struct agent_update_request {
    struct slice sandbox_id;
    int32_t timeout_sec;
    bool has_timeout_sec;
    struct slice request_id;
};
struct agent_update_response {
    struct agent_sandbox_info *sandbox;
};
struct agent_phase {
    struct slice name;
    int64_t duration_us;
};
struct agent_pause_request {
    struct slice sandbox_id;
    struct slice request_id;
    uint64_t expected_revision;
};
struct agent_pause_response {
    struct agent_sandbox_info *sandbox;
    struct rpc_list phases; /* struct agent_phase * */
};
struct agent_resume_request {
    struct slice sandbox_id;
    int32_t timeout_sec;
    bool has_timeout_sec;
    struct slice from;
    struct slice mode;
    struct slice request_id;
    uint64_t expected_revision;
};
struct agent_resume_response {
    struct agent_sandbox_info *sandbox;
    struct rpc_list phases; /* struct agent_phase * */
};
struct agent_snapshot_info {
    struct slice snapshot_id;
    struct slice generation_id;
    int32_t vcpus;
    int32_t memory_mb;
    int64_t size_bytes;
    struct slice default_user;
    int64_t created_at_ms;
};
struct agent_create_snapshot_request {
    struct slice sandbox_id;
    struct slice snapshot_id;
    struct slice request_id;
    uint64_t expected_revision;
};
struct agent_create_snapshot_response {
    struct agent_snapshot_info *snapshot;
    struct agent_sandbox_info *sandbox;
    struct rpc_list phases; /* struct agent_phase * */
};
struct agent_delete_snapshot_request {
    struct slice snapshot_id;
    struct slice request_id;
};
struct agent_delete_snapshot_response {
    char unused; /* the message has no fields */
};
struct agent_exec_request {
    struct slice sandbox_id;
    struct slice cmd;
    struct rpc_list args; /* struct slice */
    int32_t timeout_sec;
    struct rpc_list env; /* struct rpc_entry */
    struct slice cwd;
    struct slice user;
    struct slice stdin_bytes; /* field "stdin" */
};
struct agent_exec_response {
    struct slice stdout_bytes; /* field "stdout" */
    struct slice stderr_bytes; /* field "stderr" */
    int32_t exit_code;
    struct slice signal;
    bool timed_out;
    bool truncated;
    int64_t duration_ms;
    bool paused;
    int32_t pid;
    struct slice tag;
};
struct agent_read_file_request {
    struct slice sandbox_id;
    struct slice path;
    struct slice user;
};
struct agent_read_file_response {
    struct slice content;
};
struct agent_write_file_request {
    struct slice sandbox_id;
    struct slice path;
    struct slice content;
    struct slice user;
    uint32_t mode;
    bool has_mode;
};
struct agent_write_file_response {
    char unused; /* the message has no fields */
};

extern const struct rpc_message agent_sandbox_info_message, agent_template_info_message;
extern const struct rpc_message agent_create_request_message, agent_create_response_message;
extern const struct rpc_message agent_destroy_request_message, agent_destroy_response_message;
extern const struct rpc_message agent_list_request_message, agent_list_response_message;
extern const struct rpc_message agent_ping_request_message, agent_ping_response_message;
extern const struct rpc_message agent_update_request_message, agent_update_response_message;
extern const struct rpc_message agent_pause_request_message, agent_pause_response_message;
extern const struct rpc_message agent_resume_request_message, agent_resume_response_message;
extern const struct rpc_message agent_snapshot_info_message;
extern const struct rpc_message agent_create_snapshot_request_message;
extern const struct rpc_message agent_create_snapshot_response_message;
extern const struct rpc_message agent_delete_snapshot_request_message;
extern const struct rpc_message agent_delete_snapshot_response_message;
extern const struct rpc_message agent_exec_request_message, agent_exec_response_message;
extern const struct rpc_message agent_read_file_request_message, agent_read_file_response_message;
extern const struct rpc_message agent_write_file_request_message, agent_write_file_response_message;

#endif
