/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a machine that was saved can be restored on this host: pure but for a look at the set of
 * files that it needs. */
#include <string.h>

#include "agent/vmm/files.h"
#include "agent/vmm/keep.h"

enum { TSC_TOLERANCE_PPM = 250 };

static bool has_word(const char *words, const char *word, size_t n)
{
    for (const char *p = words; *p;) {
        size_t len = strcspn(p, " ");
        if (len == n && memcmp(p, word, n) == 0)
            return true;
        p += len + (p[len] == ' ');
    }
    return false;
}

static int check_cpu(const struct vmm_host *host, const struct vmm_facts *saved, struct err *e)
{
    if (!host->use_kvm)
        return err_set(e, ERR_UNSUPPORTED, "it was saved under KVM, which this host does not have");
    for (const char *p = saved->cpu_flags; *p;) {
        size_t n = strcspn(p, " ");
        if (n > 0 && !has_word(host->facts.cpu_flags, p, n))
            return err_set(e, ERR_UNSUPPORTED,
                "this host's CPU lacks the feature %.*s that the one that saved it has", (int)n, p);
        p += n + (p[n] == ' ');
    }
    return 0;
}

/* Under TCG the guest's clock counts the host's TSC. */
static int check_tsc(const struct vmm_host *host, const struct vmm_facts *saved, struct err *e)
{
    int64_t off = (int64_t)host->tsc_khz - (int64_t)saved->tsc_khz;
    if (off < 0)
        off = -off;
    if (off * 1000000 <= (int64_t)saved->tsc_khz * TSC_TOLERANCE_PPM)
        return 0;
    return err_set(e, ERR_UNSUPPORTED,
        "its clock ran at %u kHz, this host's runs at %u kHz: more than %d ppm apart",
        saved->tsc_khz, host->tsc_khz, TSC_TOLERANCE_PPM);
}

static int check_accel(const struct vmm_host *host, const struct vmm_facts *saved, struct err *e)
{
    if (strcmp(saved->accel, "kvm") == 0)
        return check_cpu(host, saved, e);
    if (strcmp(saved->accel, "tcg") == 0)
        return check_tsc(host, saved, e);
    return err_set(e, ERR_UNSUPPORTED, "it was saved under \"%s\", which is neither kvm nor tcg",
        saved->accel);
}

int vmm_can_restore(const struct vmm_host *host, const struct vmm_facts *saved, struct err *e)
{
    struct vmm_files *files;
    if (strcmp(saved->driver, host->facts.driver) != 0)
        return err_set(e, ERR_UNSUPPORTED, "it was saved by the VMM \"%s\", this host has \"%s\"",
            saved->driver, host->facts.driver);
    if (saved->snapshot_format != VMM_SNAPSHOT_FORMAT &&
        saved->snapshot_format != VMM_SNAPSHOT_FORMAT_COPIED)
        return err_set(e, ERR_UNSUPPORTED, "its snapshot format is %d, this agent knows %d and %d",
            saved->snapshot_format, VMM_SNAPSHOT_FORMAT, VMM_SNAPSHOT_FORMAT_COPIED);
    if (check_accel(host, saved, e) < 0)
        return -1;
    files = vmm_files_open_kept(host->keep_dir, saved->digest, e);
    if (!files) {
        if (e->kind == ERR_INVALID)
            e->kind = ERR_UNSUPPORTED; /* of facts without a set */
        return -1;
    }
    (void)vmm_files_free(files);
    return 0;
}
