/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU 7.2 and newer, machine type microvm.
 *
 * The device order is part of the guest ABI: disk, network, randomness. Why the machine looks as it
 * does: ACPI is where the guest's kernel finds virtio-mmio devices; qboot loads a PVH kernel 350 ms
 * sooner than a bzImage; an RTC spares the guest a wait of 2 s under TCG; `max` is the only CPU
 * model under TCG that does not cost a second. Memory merging is off, as it lets guests see each
 * other's pages by timing. The VMM reboots nothing: a guest that restarts or panics ends it.
 */
#include "agent/vmm/qemu_args.h"

#include <stdarg.h>
#include <string.h>

#include "proto/limits.h"

enum { ARENA_BYTES = 32 << 10 }; /* the arguments take 3 KiB, and paths at most 4 KiB each */

/* Of our descriptors: -add-fd makes a set, /dev/fdset/N opens from it. */
enum { FDSET_OVERLAY = 1, FDSET_BASE = 2, FDSET_LAYERS = 3 };

static void add(struct qemu_args *a, const char *arg)
{
    if (!arg || a->n == SHIM_ARGS_MAX) {
        a->failed = true;
        return;
    }
    a->argv[a->n++] = arg;
}

static void add_pair(struct qemu_args *a, const char *option, const char *value)
{
    add(a, option);
    add(a, value);
}

#define add_format(a, option, ...) add_pair(a, option, arena_printf(&(a)->arena, __VA_ARGS__))

/* The path of the memory's file, NULL for anonymous memory. */
static const char *memory_path(const struct qemu_facts *f)
{
    if (f->by_hand)
        return f->by_hand->memory_file;
    return f->use_library ? SHIM_RAM_PATH : NULL;
}

/* "share": the device state leaves shared memory out (x-ignore-shared), so that saving it takes
 * milliseconds. The library maps it privately all the same. */
static void add_memory(struct qemu_args *a, const struct qemu_facts *f)
{
    const char *path = memory_path(f);
    add_format(a, "-m", "%uM", f->memory_mb);
    if (path)
        add_format(a, "-object", "memory-backend-file,id=ram,size=%uM,mem-path=%s,share=%s",
            f->memory_mb, path, f->by_hand && f->by_hand->memory_private ? "off" : "on");
}

static void add_machine(struct qemu_args *a, const struct qemu_facts *f)
{
    add_format(a, "-name", "guest=%s", f->id);
    add(a, "-nodefaults");
    add(a, "-no-user-config");
    add_pair(a, "-display", "none");
    add(a, "-no-reboot");
    add_pair(
        a, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    add_format(a, "-M",
        "microvm,acpi=on,isa-serial=on,rtc=on,pcie=off,usb=off,x-option-roms=off,mem-merge=off%s",
        memory_path(f) ? ",memory-backend=ram" : "");
    add_pair(a, "-global", "virtio-mmio.force-legacy=false");
    add_pair(a, "-bios", f->bios);
    add_pair(a, "-accel", f->use_kvm ? "kvm" : "tcg");
    add_pair(a, "-cpu", f->use_kvm ? "host" : "max");
    add_format(a, "-smp", "%u", f->vcpus);
    add_memory(a, f);
}

/* Under TCG the guest sees the host's TSC but cannot calibrate it on a busy host, and then hangs
 * without a clock: it is told. Under KVM it has kvm-clock. */
static void add_kernel(struct qemu_args *a, const struct qemu_facts *f)
{
    const char *tsc = "";
    if (!f->use_kvm)
        tsc = arena_printf(&a->arena, " tsc_early_khz=%u tsc=reliable", f->tsc_khz);
    add_pair(a, "-kernel", f->kernel);
    add_pair(a, "-initrd", f->initrd);
    add_format(a, "-append",
        "console=ttyS0 panic=-1 reboot=t quiet%s no_timer_check cryptomgr.notests ipv6.disable=1",
        tsc ? tsc : "");
    a->failed |= tsc == NULL;
}

/* The overlay's header names no backing file: the graph is given here, each node with its own
 * name. Flushes of the guest reach the overlay (no-flush off); the base is never opened for
 * writing, whatever a command asks. */
static void add_layer(struct qemu_args *a, unsigned i, const char *path)
{
    const char *below = i == 0 ? "base" : arena_printf(&a->arena, "layer-%u", i - 1);
    a->failed |= below == NULL;
    add_format(a, "-blockdev",
        "{\"driver\":\"file\",\"node-name\":\"layer-file-%u\",\"filename\":\"%s\","
        "\"read-only\":true,\"auto-read-only\":false}",
        i, path);
    add_format(a, "-blockdev",
        "{\"driver\":\"qcow2\",\"node-name\":\"layer-%u\",\"file\":\"layer-file-%u\","
        "\"backing\":\"%s\",\"read-only\":true,\"auto-read-only\":false}",
        i, i, below ? below : "");
}

static void add_layers(struct qemu_args *a, const struct qemu_facts *f)
{
    for (unsigned i = 0; i < f->n_layers; i++) {
        const char *path;
        if (f->by_hand) {
            path = f->by_hand->layers[i];
        } else {
            add_format(a, "-add-fd", "fd=%u,set=%u,opaque=layer", SHIM_VMM_FD_LAYERS + i,
                FDSET_LAYERS + i);
            path = arena_printf(&a->arena, "/dev/fdset/%u", FDSET_LAYERS + i);
        }
        a->failed |= path == NULL;
        add_layer(a, i, path ? path : "");
    }
}

static void add_disk(
    struct qemu_args *a, const struct qemu_facts *f, const char *overlay, const char *base)
{
    const char *below =
        f->n_layers > 0 ? arena_printf(&a->arena, "layer-%u", f->n_layers - 1) : "base";
    a->failed |= below == NULL;
    add_format(a, "-blockdev",
        "{\"driver\":\"file\",\"node-name\":\"base-file\",\"filename\":\"%s\","
        "\"read-only\":true,\"auto-read-only\":false}",
        base);
    add_pair(a, "-blockdev",
        "{\"driver\":\"raw\",\"node-name\":\"base\",\"file\":\"base-file\","
        "\"read-only\":true,\"auto-read-only\":false}");
    add_format(a, "-blockdev",
        "{\"driver\":\"file\",\"node-name\":\"overlay-file\",\"filename\":\"%s\","
        "\"discard\":\"unmap\",\"cache\":{\"direct\":false,\"no-flush\":false},"
        "\"auto-read-only\":false}",
        overlay);
    add_layers(a, f);
    add_format(a, "-blockdev",
        "{\"driver\":\"qcow2\",\"node-name\":\"root\",\"file\":\"overlay-file\","
        "\"backing\":\"%s\",\"discard\":\"unmap\","
        "\"cache\":{\"direct\":false,\"no-flush\":false}}",
        below ? below : "");
    add_pair(a, "-device", "virtio-blk-device,drive=root,id=vda");
}

static void add_devices(struct qemu_args *a, const struct qemu_facts *f)
{
    const struct qemu_by_hand *h = f->by_hand;
    if (h) {
        add_disk(a, f, h->overlay, h->base);
        add_format(a, "-netdev", "tap,id=n0,ifname=%s,script=no,downscript=no,vhost=off", h->tap);
    } else {
        add_format(a, "-add-fd", "fd=%d,set=%d,opaque=overlay", SHIM_VMM_FD_OVERLAY, FDSET_OVERLAY);
        add_format(a, "-add-fd", "fd=%d,set=%d,opaque=base", SHIM_VMM_FD_BASE, FDSET_BASE);
        add_disk(a, f, "/dev/fdset/1", "/dev/fdset/2");
        add_format(a, "-netdev", "tap,id=n0,fd=%d,vhost=off", SHIM_VMM_FD_TAP);
    }
    add_pair(a, "-device", "virtio-net-device,netdev=n0,id=net0,mac=" GUEST_MAC);
    add_pair(a, "-device", "virtio-rng-device,id=rng0");
    if (h) {
        add_pair(a, "-serial", "stdio");
    } else {
        add_format(a, "-chardev", "socket,id=console,fd=%d", SHIM_VMM_FD_SERIAL);
        add_pair(a, "-serial", "chardev:console");
    }
}

/* One client at a time; the next one is served when it has left. */
static void add_monitor(struct qemu_args *a, const struct qemu_facts *f)
{
    if (f->by_hand && !f->by_hand->monitor)
        return;
    if (f->by_hand)
        add_format(
            a, "-chardev", "socket,id=monitor,path=%s,server=on,wait=off", f->by_hand->monitor);
    else
        add_format(
            a, "-chardev", "socket,id=monitor,fd=%d,server=on,wait=off", SHIM_VMM_FD_MONITOR);
    add_pair(a, "-mon", "chardev=monitor,mode=control");
}

/* Paths stand inside JSON and comma-separated options: what would need quoting there is refused. */
static int check_path(const char *what, const char *path, struct err *e)
{
    if (path[0] != '/')
        return err_set(e, ERR_INVALID, "%s: not an absolute path: %s", what, path);
    for (const char *p = path; *p; p++)
        if ((unsigned char)*p < 0x20 || strchr("\",\\", *p))
            return err_set(e, ERR_INVALID, "%s: a path may not hold \", \\ or a comma", what);
    return 0;
}

static int check_facts(const struct qemu_facts *f, struct err *e)
{
    const struct qemu_by_hand *h = f->by_hand;
    if (check_path("VMM", f->program, e) < 0 || check_path("firmware", f->bios, e) < 0 ||
        (!f->restores &&
            (check_path("kernel", f->kernel, e) < 0 || check_path("initrd", f->initrd, e) < 0)))
        return -1;
    if (h && (check_path("overlay", h->overlay, e) < 0 || check_path("base image", h->base, e) < 0))
        return -1;
    if (h && ((h->memory_file && check_path("memory", h->memory_file, e) < 0) ||
                 (h->monitor && check_path("monitor", h->monitor, e) < 0)))
        return -1;
    for (unsigned i = 0; h && i < f->n_layers; i++)
        if (check_path("layer", h->layers[i], e) < 0)
            return -1;
    if (f->n_layers > SHIM_LAYERS_MAX)
        return err_set(e, ERR_TOO_LARGE, "a disk of %u layers", f->n_layers);
    if (f->vcpus < LIMIT_VCPUS_MIN || f->vcpus > LIMIT_VCPUS_MAX)
        return err_field(e, "vcpus", "a machine cannot have %u vcpus", f->vcpus);
    if (f->memory_mb < LIMIT_MEMORY_MB_MIN || f->memory_mb > LIMIT_MEMORY_MB_MAX)
        return err_field(e, "memory_mb", "a machine cannot have %u MiB", f->memory_mb);
    if (!f->use_kvm && f->tsc_khz == 0)
        return err_set(e, ERR_INVALID, "the TSC frequency is not known");
    return 0;
}

/* A device state that was saved without memory comes without the two sections that QEMU would look
 * for, and does not say that the machine stood still: -S does. */
static void add_incoming(struct qemu_args *a, const struct qemu_facts *f)
{
    add_pair(a, "-incoming", "defer");
    if (!f->is_copied)
        return;
    add(a, "-S");
    add_pair(a, "-global", "migration.send-configuration=off");
    add_pair(a, "-global", "migration.store-global-state=off");
}

int qemu_args_build(const struct qemu_facts *f, struct qemu_args *ret, struct err *e)
{
    struct qemu_args a = {0};
    if (check_facts(f, e) < 0)
        return -1;
    arena_init(&a.arena, ARENA_BYTES);
    add(&a, f->program);
    add_machine(&a, f);
    if (f->restores)
        add_incoming(&a, f);
    else
        add_kernel(&a, f);
    add_devices(&a, f);
    add_monitor(&a, f);
    if (a.failed) {
        qemu_args_done(&a);
        return err_set(e, ERR_TOO_LARGE, "the VMM's arguments are too long");
    }
    *ret = a;
    return 0;
}

void qemu_args_done(struct qemu_args *a)
{
    arena_done(&a->arena);
    *a = (struct qemu_args){0};
}

static bool is_plain(const char *s)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "-_./=,:+@%";
    return *s && s[strspn(s, safe)] == '\0';
}

static void print_quoted(const char *s, struct buf *dst)
{
    buf_append_char(dst, '\'');
    for (; *s; s++)
        if (*s == '\'')
            buf_append_cstr(dst, "'\\''");
        else
            buf_append_char(dst, *s);
    buf_append_char(dst, '\'');
}

void qemu_args_print(const struct qemu_args *a, struct buf *dst)
{
    for (size_t i = 0; i < a->n; i++) {
        if (i > 0)
            buf_append_char(dst, ' ');
        if (is_plain(a->argv[i]))
            buf_append_cstr(dst, a->argv[i]);
        else
            print_quoted(a->argv[i], dst);
    }
}
