/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generation that a sandbox sleeps in, or that its VM was restored from.
 *
 * Theory of operation: the entry's generation is pinned as long as it stands there, in state.json
 * or, of a VM that runs, in the run folder's note; so a template that is deleted takes nothing away
 * from the sandboxes that came from it. Beside it a VM that runs pins its live snapshots, as the
 * shim refers to what they stored. An open `source` holds blobs and says which layers lie below the
 * VM's overlay; no layout is merged while its sandbox runs.
 */
#define LOG_MODULE "life"
#include "agent/life/life_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

enum { MAP_COUNT_DEFAULT = 65530 };

int source_open(struct sandbox *s, struct err *e)
{
    struct uuid id;
    struct generation *g;
    if (!uuid_parse(slice_cstr(s->entry.generation), &id))
        return err_set(e, ERR_NOT_FOUND, "the sandbox has no generation");
    g = generation_open(s->life->generations, &id, e);
    if (!g)
        return -1;
    if (host_image_find(&s->life->host, g->manifest.image_digest, &s->template, e) < 0) {
        (void)generation_close(g);
        return err_wrap(e, "base image");
    }
    source_close(s);
    s->source = g;
    return 0;
}

void source_close(struct sandbox *s)
{
    s->source = generation_close(s->source);
}

static void unpin_text(struct life *l, struct slice text)
{
    struct uuid id;
    if (uuid_parse(text, &id))
        generation_unpin(l->generations, &id);
}

void source_unpin_live(struct sandbox *s)
{
    char live[sizeof s->entry.live];
    {
        MUTEX_GUARD(&s->life->lock);
        memcpy(live, s->entry.live, sizeof live);
        s->entry.live[0] = '\0';
    }
    for (const char *p = live; strlen(p) > UUID_TEXT; p += UUID_TEXT + 1)
        unpin_text(s->life, slice_of(p, UUID_TEXT));
}

void source_unpin(struct sandbox *s)
{
    char generation[UUID_TEXT + 1];
    source_unpin_live(s);
    {
        MUTEX_GUARD(&s->life->lock);
        memcpy(generation, s->entry.generation, sizeof generation);
        s->entry.generation[0] = '\0';
    }
    unpin_text(s->life, slice_cstr(generation));
    if (!uuid_is_none(&s->doubtful))
        generation_unpin(s->life->generations, &s->doubtful);
    s->doubtful = (struct uuid){0};
}

bool source_add_live(struct sandbox *s, const struct uuid *generation)
{
    char text[UUID_TEXT + 1];
    size_t n;
    uuid_format(generation, text);
    MUTEX_GUARD(&s->life->lock);
    n = strlen(s->entry.live);
    if (n + UUID_TEXT + 1 >= sizeof s->entry.live)
        return false;
    (void)snprintf(s->entry.live + n, sizeof s->entry.live - n, "%s,", text);
    return true;
}

void source_to_facts(const struct generation_machine *m, struct vmm_facts *ret)
{
    *ret = (struct vmm_facts){.tsc_khz = m->tsc_khz, .snapshot_format = m->snapshot_format};
    memcpy(ret->driver, m->driver, sizeof ret->driver);
    memcpy(ret->version, m->version, sizeof ret->version);
    memcpy(ret->digest, m->vmm_digest, sizeof ret->digest);
    memcpy(ret->accel, m->accel, sizeof ret->accel);
    memcpy(ret->machine, m->machine, sizeof ret->machine);
    memcpy(ret->cpu, m->cpu, sizeof ret->cpu);
    memcpy(ret->cpu_flags, m->cpu_flags, sizeof ret->cpu_flags);
}

void source_from_facts(const struct vmm_facts *f, struct generation_machine *ret)
{
    *ret =
        (struct generation_machine){.tsc_khz = f->tsc_khz, .snapshot_format = f->snapshot_format};
    memcpy(ret->driver, f->driver, sizeof ret->driver);
    memcpy(ret->version, f->version, sizeof ret->version);
    memcpy(ret->vmm_digest, f->digest, sizeof ret->vmm_digest);
    memcpy(ret->accel, f->accel, sizeof ret->accel);
    memcpy(ret->machine, f->machine, sizeof ret->machine);
    memcpy(ret->cpu, f->cpu, sizeof ret->cpu);
    memcpy(ret->cpu_flags, f->cpu_flags, sizeof ret->cpu_flags);
}

/* How many mappings a process may have. */
static uint64_t map_count_max(void)
{
    AUTO_BUF struct buf text = BUF_INIT(64);
    struct err ignored;
    uint64_t n;
    if (io_read_file(AT_FDCWD, "/proc/sys/vm/max_map_count", &text, &ignored) < 0)
        return MAP_COUNT_DEFAULT;
    if (text.len > 0 && text.p[text.len - 1] == '\n')
        text.len--;
    return slice_parse_u64(buf_slice(&text), &n) ? n : MAP_COUNT_DEFAULT;
}

/* Each run of a blob is a mapping; half of what is allowed leaves room for those that split when
 * the VMM advises on a part. */
int source_choose_memory(
    const struct life *l, const struct generation *g, enum vmm_memory *ret, struct err *e)
{
    bool few_runs = g->map_entries < map_count_max() / 2;
    enum vmm_memory memory = VMM_MEMORY_PRIVATE;
    if (g->manifest.machine.snapshot_format == VMM_SNAPSHOT_FORMAT_COPIED) {
        *ret = VMM_MEMORY_COPIED;
        return 0;
    }
    if (l->memory == LIFE_MEMORY_UFFD || (l->memory == LIFE_MEMORY_AUTO && !few_runs))
        memory = VMM_MEMORY_UFFD;
    if (memory == VMM_MEMORY_UFFD && !l->vmm_host.has_uffd)
        return err_set(e, ERR_UNSUPPORTED,
            "this host cannot serve page faults (no /dev/userfaultfd), and the memory %s",
            few_runs ? "may not be mapped (TORPOR_MEMORY)" : "has too many parts to be mapped");
    if (memory == VMM_MEMORY_PRIVATE && !few_runs)
        return err_set(e, ERR_UNSUPPORTED, "the memory has too many parts to be mapped");
    *ret = memory;
    return 0;
}

void source_record_hints(struct sandbox *s)
{
    uint64_t pages = 0;
    struct err e = {0};
    int fd = -1;
    const struct uuid *id = &s->source->manifest.id;
    if (generation_hints_begin(s->life->generations, id, &fd, &e) < 0)
        return;
    if (vmm_save_hints(s->vmm, fd, &pages, deadline_in_ms(LIMIT_TRANSITION_WAIT_MS), &e) == 0 &&
        pages > 0 && generation_hints_end(s->life->generations, id, fd, &e) == 0)
        log_debug("working set recorded pages=%llu", (unsigned long long)pages);
    (void)close(fd);
}
