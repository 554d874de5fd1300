/* SPDX-License-Identifier: Apache-2.0 */
/* Ids, states, names. */
#include "proto/sandbox.h"

#include <assert.h>
#include <stdio.h>

#include "base/rand.h"
#include "proto/limits.h"

static void id_new(const char *prefix, char text[ID_TEXT_MAX + 1])
{
    size_t n = strlen(prefix);
    assert(n + ID_RANDOM_CHARS <= ID_TEXT_MAX);
    memcpy(text, prefix, n);
    rand_base32(text + n, ID_RANDOM_CHARS);
}

static bool id_parse(const char *prefix, struct slice s, char text[ID_TEXT_MAX + 1])
{
    size_t n = strlen(prefix);
    if (s.n != n + ID_RANDOM_CHARS || memcmp(s.p, prefix, n) != 0)
        return false;
    for (size_t i = n; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '2' && s.p[i] <= '7')))
            return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return true;
}

#define ID_FUNCTIONS(type, prefix)                                                                 \
    void type##_new(struct type *ret)                                                              \
    {                                                                                              \
        id_new(prefix, ret->text);                                                                 \
    }                                                                                              \
    bool type##_parse(struct slice s, struct type *ret)                                            \
    {                                                                                              \
        return id_parse(prefix, s, ret->text);                                                     \
    }

ID_FUNCTIONS(sandbox_id, "sb")
ID_FUNCTIONS(team_id, "team")
ID_FUNCTIONS(key_id, "key")
ID_FUNCTIONS(host_id, "host")
ID_FUNCTIONS(template_id, "snap")

static const char *const status_names[] = {
    [SANDBOX_PENDING] = "pending",
    [SANDBOX_RUNNING] = "running",
    [SANDBOX_PAUSING] = "pausing",
    [SANDBOX_PAUSED] = "paused",
    [SANDBOX_RESUMING] = "resuming",
    [SANDBOX_STOPPED] = "stopped",
    [SANDBOX_ERROR] = "error",
};
static_assert(sizeof status_names / sizeof *status_names == SANDBOX_STATUS_COUNT, "each named");

static const char *const reason_names[] = {
    [REASON_NONE] = "",
    [REASON_DESTROYED] = "destroyed",
    [REASON_VM_EXITED] = "vm_exited",
    [REASON_LOST] = "lost",
    [REASON_RESTORED] = "restored",
    [REASON_PAUSE_FAILED] = "pause_failed",
    [REASON_CREATE_FAILED] = "create_failed",
    [REASON_RESTORE_FAILED] = "restore_failed",
    [REASON_CLIENT_GONE] = "client_gone",
    [REASON_IDLE] = "idle",
    [REASON_REQUESTED] = "requested",
};
static_assert(sizeof reason_names / sizeof *reason_names == SANDBOX_REASON_COUNT, "each named");

const char *sandbox_status_name(enum sandbox_status s)
{
    assert(s < SANDBOX_STATUS_COUNT);
    return status_names[s];
}

bool sandbox_status_parse(struct slice s, enum sandbox_status *ret)
{
    for (int i = 0; i < SANDBOX_STATUS_COUNT; i++)
        if (slice_is(s, status_names[i])) {
            *ret = (enum sandbox_status)i;
            return true;
        }
    return false;
}

const char *sandbox_reason_name(enum sandbox_reason r)
{
    assert(r < SANDBOX_REASON_COUNT);
    return reason_names[r];
}

bool sandbox_reason_parse(struct slice s, enum sandbox_reason *ret)
{
    for (int i = 0; i < SANDBOX_REASON_COUNT; i++)
        if (slice_is(s, reason_names[i])) {
            *ret = (enum sandbox_reason)i;
            return true;
        }
    return false;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool template_name_valid(struct slice s)
{
    if (s.n == 0 || s.n > LIMIT_NAME_MAX || !is_alnum(s.p[0]))
        return false;
    for (size_t i = 1; i < s.n; i++)
        if (!is_alnum(s.p[i]) && s.p[i] != '.' && s.p[i] != '_' && s.p[i] != '-')
            return false;
    return true;
}
