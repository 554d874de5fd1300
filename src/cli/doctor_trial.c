/* SPDX-License-Identifier: Apache-2.0 */
/* The probe for the agent's own test: whether it could save and restore a machine (its
 * memory.json). */
#include <fcntl.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/doctor.h"
#include "json/json.h"

enum { FILE_MAX = 64 << 10, REASON_MAX = 160 };

static const char item_name[] = "sleep and wake";

/* The text of a member, cut. */
static const char *text_of(const struct json_value *v, const char *key, char dst[REASON_MAX])
{
    struct slice s = json_get_text(v, key);
    (void)snprintf(dst, REASON_MAX, "%.*s", (int)s.n, s.p ? s.p : "");
    return dst;
}

static void add_outcome(struct doctor *d, const struct json_value *v)
{
    const struct json_value *faults = json_get(v, "page_faults");
    struct slice way = json_get_text(v, "way");
    char vmm[REASON_MAX];
    char reason[REASON_MAX];
    (void)text_of(v, "vmm", vmm);
    (void)text_of(v, "reason", reason);
    if (slice_is(way, "private"))
        doctor_add(d, DOCTOR_OK, item_name, "", "", "tried with QEMU %s: memory is mapped%s", vmm,
            faults && faults->type == JSON_BOOL && faults->boolean ? ", or served by page faults"
                                                                   : "");
    else if (slice_is(way, "copied"))
        doctor_add(d, DOCTOR_WARN, item_name,
            "all of a sandbox's memory is copied when it wakes: slower, and none is shared",
            "a QEMU in which torpor-memory.so takes hold, such as Debian's", "QEMU %s: %s", vmm,
            reason);
    else if (slice_is(way, "unknown"))
        doctor_add(d, DOCTOR_WARN, item_name, "it is not known how sandboxes wake",
            "torpor down and up, with a free slot", "could not be tried: %s", reason);
    else
        doctor_add(d, DOCTOR_WARN, item_name, "sandboxes run, but can neither sleep nor wake",
            "look into the agent's log", "QEMU %s: %s", vmm, reason);
}

void doctor_probe_trial(struct doctor *d)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_MAX);
    char path[PATH_MAX + 16];
    struct err e = {0};
    struct arena arena;
    const struct json_value *v;
    (void)snprintf(path, sizeof path, "%s/memory.json", d->data);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0) {
        doctor_add(d, DOCTOR_WARN, item_name, "it is not known how sandboxes wake",
            "make up, or torpor up: an agent finds it out", "not tried yet");
        return;
    }
    arena_init(&arena, FILE_MAX * 4);
    if (json_parse(buf_slice(&text), &arena, &v, &e) == 0)
        add_outcome(d, v);
    else
        doctor_add(d, DOCTOR_WARN, item_name, "it is not known how sandboxes wake",
            "torpor down and up", "%s: %s", path, e.msg);
    arena_done(&arena);
}
