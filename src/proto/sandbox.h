/* SPDX-License-Identifier: Apache-2.0 */
/* What all programs know of a sandbox: its id, its states and reasons, the names people may give.
 */
#ifndef TORPOR_PROTO_SANDBOX_H
#define TORPOR_PROTO_SANDBOX_H

#include <stdbool.h>

#include "base/slice.h"

/* A prefix of at most 4 letters and 20 characters of lower-case base32 (100 random bits). */
enum { ID_RANDOM_CHARS = 20, ID_TEXT_MAX = 24 };

/* Distinct types, so that a team's id never passes for a sandbox's. The text is always valid
 * or empty. */
struct sandbox_id {
    char text[ID_TEXT_MAX + 1];
};
struct team_id {
    char text[ID_TEXT_MAX + 1];
};
struct key_id {
    char text[ID_TEXT_MAX + 1];
};
struct host_id {
    char text[ID_TEXT_MAX + 1];
};
struct template_id {
    char text[ID_TEXT_MAX + 1];
};

void sandbox_id_new(struct sandbox_id *ret);
void team_id_new(struct team_id *ret);
void key_id_new(struct key_id *ret);
void host_id_new(struct host_id *ret);
void template_id_new(struct template_id *ret);

/* True, and `ret` set, when `s` is exactly such an id (prefix and alphabet checked). */
bool sandbox_id_parse(struct slice s, struct sandbox_id *ret);
bool team_id_parse(struct slice s, struct team_id *ret);
bool key_id_parse(struct slice s, struct key_id *ret);
bool host_id_parse(struct slice s, struct host_id *ret);
bool template_id_parse(struct slice s, struct template_id *ret);

enum sandbox_status {
    SANDBOX_PENDING,
    SANDBOX_RUNNING,
    SANDBOX_PAUSING,
    SANDBOX_PAUSED,
    SANDBOX_RESUMING,
    SANDBOX_STOPPED,
    SANDBOX_ERROR,
    SANDBOX_STATUS_COUNT
};
/* Public names: "pending", ... */
const char *sandbox_status_name(enum sandbox_status s);
bool sandbox_status_parse(struct slice s, enum sandbox_status *ret);

enum sandbox_reason {
    REASON_NONE,
    REASON_DESTROYED,
    REASON_VM_EXITED,
    REASON_LOST,
    REASON_RESTORED,
    REASON_PAUSE_FAILED,
    REASON_CREATE_FAILED,
    REASON_RESTORE_FAILED,
    REASON_CLIENT_GONE,
    REASON_IDLE,
    REASON_REQUESTED,
    SANDBOX_REASON_COUNT
};
/* Public names: "", "destroyed", "vm_exited", ... */
const char *sandbox_reason_name(enum sandbox_reason r);
bool sandbox_reason_parse(struct slice s, enum sandbox_reason *ret);

/* Template and snapshot names: ^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$ */
bool template_name_valid(struct slice s);

#endif
