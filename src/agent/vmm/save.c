/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping, saving and restoring one machine.
 *
 * Theory of operation: QEMU knows the devices and is asked over its monitor; the shim knows the
 * memory and is asked over the control connection. QEMU is told that its memory is shared, so that
 * its migration leaves it out (x-ignore-shared) and moves a device state of some 100 KB, into or
 * out of a plain file whose descriptor goes along ("fd:"; QEMU 7.2 cannot open one itself).
 *
 * A VM that has its memory to itself (VMM_MEMORY_COPIED) would move all of it in a migration. So
 * its device state is asked for alone (xen-save-devices-state, which every build of QEMU has), and
 * comes back as a migration in which memory has no part, once the shim has filled the memory.
 *
 * The monitor's connection is open only while the vCPUs stand still: a guest that runs and owns
 * its VMM has nobody to send events to.
 *
 * Replies of the shim come over the handle's link, on which otherwise only the VMM's end arrives.
 * An end that comes instead of a reply is put back (vmm_leave_end_on_link), so that whoever watches
 * the link still sees it. Nobody may watch it during a call here.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "agent/vmm/qmp.h"
#include "agent/vmm/shim_link.h"
#include "agent/vmm/vmm_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "json/json.h"

enum {
    CANCEL_MS = 10000, /* a shim looks for it every 256 KiB */
    NODE_BYTES = 32,   /* QEMU's own bound of a node's name */
};

/* --- monitor --- */

static int command(
    struct vmm *v, const char *name, const char *arguments, int fd, int64_t deadline, struct err *e)
{
    const struct qmp_command c = {.name = name, .arguments = arguments, .fd = fd};
    return qmp_execute(v->qmp, &c, NULL, deadline, e);
}

/* A monitor that ended is a VMM that did: it says how. */
static int ended(struct vmm *v, struct err *e)
{
    if (e->kind == ERR_UNAVAILABLE) {
        v->qmp = qmp_close(v->qmp);
        return err_set(e, ERR_UNAVAILABLE, "%s", vmm_exit_text(v));
    }
    if (e->kind == ERR_PROTOCOL || e->kind == ERR_TIMEOUT)
        v->qmp = qmp_close(v->qmp); /* it is of no more use */
    return -1;
}

static int attach(struct vmm *v, int64_t deadline, struct err *e)
{
    if (v->qmp)
        return 0;
    if (!v->can_save)
        return err_set(e, ERR_UNSUPPORTED, "the memory of this VM cannot be saved");
    v->qmp = qmp_open(v->monitor_path, deadline, e);
    return v->qmp ? 0 : ended(v, e);
}

static int query_status(struct vmm *v, char dst[32], int64_t deadline, struct err *e)
{
    const struct qmp_command c = {.name = "query-status", .fd = -1};
    const struct json_value *answer;
    const struct json_value *status;
    if (qmp_execute(v->qmp, &c, &answer, deadline, e) < 0)
        return -1;
    status = json_get(answer, "status");
    if (!status || status->type != JSON_STRING || !slice_copy_cstr(status->string, dst, 32))
        return err_set(e, ERR_PROTOCOL, "the VMM does not say its state");
    return 0;
}

/* QEMU tells no event when a state that it passes through is left, so it is asked again and again;
 * after the migration's own event that takes one or two answers, each a turn of QEMU's main loop.
 */
static int await_status(struct vmm *v, const char *wanted, int64_t deadline, struct err *e)
{
    char status[32];
    do {
        if (query_status(v, status, deadline, e) < 0)
            return -1;
        if (strcmp(status, wanted) == 0)
            return 0;
    } while (clock_mono_ms() < deadline);
    return err_set(e, ERR_TIMEOUT, "the VMM stays %s", status);
}

/* Memory is left out, and the end of a migration is an event. */
static int prepare_migration(struct vmm *v, int state_fd, int64_t deadline, struct err *e)
{
    static const char without_shared[] =
        "{\"capabilities\":[{\"capability\":\"x-ignore-shared\",\"state\":true},"
        "{\"capability\":\"events\",\"state\":true}]}";
    static const char events[] = "{\"capabilities\":[{\"capability\":\"events\",\"state\":true}]}";
    const char *capabilities = v->is_copied ? events : without_shared;
    if (command(v, "migrate-set-capabilities", capabilities, -1, deadline, e) < 0)
        return -1;
    qmp_migration_begin(v->qmp);
    return command(v, "getfd", "{\"fdname\":\"state\"}", state_fd, deadline, e);
}

/* --- the shim --- */

static int told_end(struct vmm *v, const struct shim_msg *m, struct err *e)
{
    struct err ignored;
    char text[EXIT_TEXT_MAX];
    (void)vmm_leave_end_on_link(v, deadline_in_ms(CANCEL_MS), &ignored);
    shim_format_exit(m, text, sizeof text);
    return err_set(e, ERR_UNAVAILABLE, "%s", text);
}

static int told_failure(const struct shim_msg *m, struct err *e)
{
    if (m->errnum == ECANCELED)
        return err_set(e, ERR_CANCELED, "broken off");
    (void)err_set(e, err_kind_from_errno(m->errnum), "%s", m->text);
    e->errnum = m->errnum;
    return -1;
}

static int take_reply(
    struct vmm *v, enum shim_msg_type wanted, struct shim_msg *ret, int64_t deadline, struct err *e)
{
    if (shim_receive(v->link, deadline, ret, e) < 0)
        return -1;
    if (ret->ended)
        return told_end(v, ret, e);
    if (ret->type == wanted)
        return 0;
    if (ret->type == SHIM_MSG_SAVE_FAILED)
        return told_failure(ret, e);
    if (ret->type == SHIM_MSG_REFUSED)
        return err_set(e, ret->refusal == SHIM_REFUSAL_MEMORY ? ERR_UNSUPPORTED : ERR_PROTOCOL,
            "the shim refuses to save memory (%u)", ret->refusal);
    return err_set(e, ERR_PROTOCOL, "the shim answered with message %u", ret->type);
}

static int check_version(const struct vmm *v, struct err *e)
{
    if (!v->can_save || v->version < 3)
        return err_set(e, ERR_UNSUPPORTED, "the memory of this VM cannot be saved");
    return 0;
}

static int fill_memory(struct vmm *v, int64_t deadline, struct err *e)
{
    struct shim_msg m;
    if (shim_send(v->link, v->version, SHIM_MSG_FILL, deadline, e) < 0 ||
        take_reply(v, SHIM_MSG_STATE, &m, deadline, e) < 0)
        return err_wrap(e, "fill the memory");
    return 0;
}

/* --- device state --- */

static int load(struct vmm *v, int state_fd, int64_t deadline, struct err *e)
{
    if (prepare_migration(v, state_fd, deadline, e) < 0 ||
        command(v, "migrate-incoming", "{\"uri\":\"fd:state\"}", -1, deadline, e) < 0 ||
        qmp_migration_wait(v->qmp, deadline, e) < 0)
        return -1;
    return await_status(v, "paused", deadline, e);
}

int vmm_load(struct vmm *v, int state_fd, int64_t deadline, struct err *e)
{
    if (attach(v, deadline, e) < 0 || (v->is_copied && fill_memory(v, deadline, e) < 0) ||
        (load(v, state_fd, deadline, e) < 0 && ended(v, e) < 0))
        return err_wrap(e, "load the device state");
    return 0;
}

int vmm_run(struct vmm *v, int64_t deadline, struct err *e)
{
    if (attach(v, deadline, e) < 0 ||
        (command(v, "cont", NULL, -1, deadline, e) < 0 && ended(v, e) < 0))
        return err_wrap(e, "let the vCPUs run");
    v->qmp = qmp_close(v->qmp);
    return 0;
}

int vmm_pause(struct vmm *v, int64_t deadline, struct err *e)
{
    if (attach(v, deadline, e) < 0 ||
        (command(v, "stop", NULL, -1, deadline, e) < 0 && ended(v, e) < 0))
        return err_wrap(e, "stop the vCPUs");
    return 0;
}

static int save_state(struct vmm *v, int state_fd, int64_t deadline, struct err *e)
{
    if (prepare_migration(v, state_fd, deadline, e) < 0 ||
        command(v, "migrate", "{\"uri\":\"fd:state\"}", -1, deadline, e) < 0 ||
        qmp_migration_wait(v->qmp, deadline, e) < 0)
        return -1;
    return await_status(v, "postmigrate", deadline, e);
}

/* Hands the file over. QEMU chooses the set's number, which then is a new one. */
static int add_fd(struct vmm *v, int fd, long long *ret_set, int64_t deadline, struct err *e)
{
    const struct qmp_command c = {.name = "add-fd", .fd = fd};
    const struct json_value *answer;
    const struct json_value *set;
    if (qmp_execute(v->qmp, &c, &answer, deadline, e) < 0)
        return -1;
    set = json_get(answer, "fdset-id");
    if (!set || set->type != JSON_INT || set->integer < 0)
        return err_set(e, ERR_PROTOCOL, "the VMM does not say which descriptor it took");
    *ret_set = set->integer;
    return 0;
}

/* QEMU opens it by the set that it is in, for writing only. */
static int write_state(struct vmm *v, int fd, int64_t deadline, struct err *e)
{
    long long set;
    char arguments[96];
    if (add_fd(v, fd, &set, deadline, e) < 0)
        return -1;
    (void)snprintf(
        arguments, sizeof arguments, "{\"filename\":\"/dev/fdset/%lld\",\"live\":false}", set);
    if (command(v, "xen-save-devices-state", arguments, -1, deadline, e) < 0)
        return -1;
    (void)snprintf(arguments, sizeof arguments, "{\"fdset-id\":%lld}", set);
    return command(v, "remove-fd", arguments, -1, deadline, e);
}

static int save_state_alone(struct vmm *v, int state_fd, int64_t deadline, struct err *e)
{
    char path[32];
    AUTO_CLOSE int fd = -1;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", state_fd);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open the file for it") : write_state(v, fd, deadline, e);
}

int vmm_save_state(struct vmm *v, int state_fd, int64_t deadline, struct err *e)
{
    int rc = attach(v, deadline, e);
    if (rc == 0)
        rc = v->is_copied ? save_state_alone(v, state_fd, deadline, e)
                          : save_state(v, state_fd, deadline, e);
    if (rc < 0 && ended(v, e) < 0)
        return err_wrap(e, "save the device state");
    return 0;
}

/* --- overlay --- */

/* The node that the disk writes to: "root", or what an earlier swap, perhaps another agent's,
 * called it. */
static int query_overlay(struct vmm *v, char dst[NODE_BYTES], int64_t deadline, struct err *e)
{
    static const char where[] = "{\"path\":\"/machine/peripheral/vda\",\"property\":\"drive\"}";
    const struct qmp_command c = {.name = "qom-get", .arguments = where, .fd = -1};
    const struct json_value *answer;
    if (qmp_execute(v->qmp, &c, &answer, deadline, e) < 0)
        return -1;
    if (answer->type != JSON_STRING || !slice_copy_cstr(answer->string, dst, NODE_BYTES) ||
        strncmp(dst, "root", 4) != 0 || dst[4 + strspn(dst + 4, "-0123456789")] != '\0')
        return err_set(e, ERR_PROTOCOL, "the VMM does not say where its disk writes to");
    return 0;
}

/* Names of nodes are new ones also after an attempt that failed half-way: by the clock. */
static int swap_overlay(struct vmm *v, int overlay_fd, int64_t deadline, struct err *e)
{
    long long n = clock_mono_us();
    long long set = 0;
    char file[256];
    char node[256];
    char graph[160];
    char from[NODE_BYTES];
    if (query_overlay(v, from, deadline, e) < 0 || add_fd(v, overlay_fd, &set, deadline, e) < 0)
        return -1;
    (void)snprintf(file, sizeof file,
        "{\"driver\":\"file\",\"node-name\":\"file-%lld\","
        "\"filename\":\"/dev/fdset/%lld\",\"discard\":\"unmap\",\"auto-read-only\":false}",
        n, set);
    (void)snprintf(node, sizeof node,
        "{\"driver\":\"qcow2\",\"node-name\":\"root-%lld\",\"file\":\"file-%lld\","
        "\"backing\":null,\"discard\":\"unmap\"}",
        n, n);
    (void)snprintf(graph, sizeof graph, "{\"node\":\"%s\",\"overlay\":\"root-%lld\"}", from, n);
    if (command(v, "blockdev-add", file, -1, deadline, e) < 0 ||
        command(v, "blockdev-add", node, -1, deadline, e) < 0)
        return -1;
    return command(v, "blockdev-snapshot", graph, -1, deadline, e);
}

int vmm_swap_overlay(struct vmm *v, int overlay_fd, int64_t deadline, struct err *e)
{
    if (attach(v, deadline, e) < 0 ||
        (swap_overlay(v, overlay_fd, deadline, e) < 0 && ended(v, e) < 0))
        return err_wrap(e, "freeze the disk");
    return 0;
}

/* --- memory --- */

/* ERR_NONE when there is something to read, else why there will be no waiting for it. */
static enum err_kind await_reply(const struct vmm *v, int cancel_fd, int64_t deadline)
{
    struct pollfd p[] = {{.fd = v->link, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
    int n;
    do
        n = poll(p, ARRAY_LEN(p), deadline_poll_ms(deadline));
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return ERR_TIMEOUT;
    return n < 0 || p[0].revents != 0 ? ERR_NONE : ERR_CANCELED;
}

/* Breaks the save off. Whatever the shim says now is its end, too late or not; unread, it would
 * pass for the reply to the next request. */
static int cancel(struct vmm *v, enum err_kind why, struct shim_msg *ret, struct err *e)
{
    int64_t deadline = deadline_in_ms(CANCEL_MS);
    if (shim_send(v->link, v->version, SHIM_MSG_CANCEL, deadline, e) < 0)
        return -1;
    if (take_reply(v, SHIM_MSG_SAVED, ret, deadline, e) < 0 && e->kind != ERR_CANCELED)
        return -1;
    return err_set(e, why, why == ERR_TIMEOUT ? "it takes too long" : "broken off");
}

int vmm_save_memory(struct vmm *v, const struct vmm_save *save, struct vmm_saved *ret,
    int64_t deadline, struct err *e)
{
    const int fds[] = {save->blob_fd, save->sums_fd, save->map_fd};
    enum err_kind why;
    struct shim_msg m;
    int rc;
    if (check_version(v, e) < 0 || shim_send_fds(v->link,
                                       &(struct shim_request){.type = SHIM_MSG_SAVE,
                                           .flags = save->write_back ? SHIM_SAVE_WRITE_BACK : 0,
                                           .uuid = save->blob.bytes,
                                           .fds = fds,
                                           .n_fds = ARRAY_LEN(fds)},
                                       e) < 0)
        return err_wrap(e, "save memory");
    why = await_reply(v, save->cancel_fd, deadline);
    rc = why == ERR_NONE ? take_reply(v, SHIM_MSG_SAVED, &m, deadline, e) : cancel(v, why, &m, e);
    if (rc < 0)
        return err_wrap(e, "save memory");
    *ret = (struct vmm_saved){.pages_stored = m.pages_stored,
        .pages_zero = m.pages_zero,
        .pages_referred = m.pages_referred,
        .scan_us = m.scan_us,
        .write_us = m.write_us,
        .map_entries = m.map_entries,
        .map_blobs = m.map_blobs};
    return 0;
}

int vmm_save_commit(struct vmm *v, int64_t deadline, struct err *e)
{
    struct shim_msg m;
    if (check_version(v, e) < 0 ||
        shim_send(v->link, v->version, SHIM_MSG_COMMIT, deadline, e) < 0 ||
        take_reply(v, SHIM_MSG_STATE, &m, deadline, e) < 0)
        return err_wrap(e, "commit memory");
    return 0;
}

int vmm_save_hints(struct vmm *v, int fd, uint64_t *ret_pages, int64_t deadline, struct err *e)
{
    struct shim_msg m;
    if (check_version(v, e) < 0 ||
        shim_send_fds(v->link,
            &(struct shim_request){.type = SHIM_MSG_HINTS, .fds = &fd, .n_fds = 1}, e) < 0 ||
        take_reply(v, SHIM_MSG_SAVED, &m, deadline, e) < 0)
        return err_wrap(e, "working set");
    *ret_pages = m.pages_stored;
    return 0;
}
