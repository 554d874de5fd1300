/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging overlays that a guest has tampered with. A sound overlay is 400 KiB, too much for a first
 * input, so the input is a list of changes to one: where (3 bytes: the cluster, and 2 of offset in
 * it), how many bytes, the bytes. What is merged must be an overlay that merges to itself.
 */
#include <assert.h>
#include <endian.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/disk/qcow2_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_CLUSTERS = 8, L1_AT = 3, L2_AT = 4, DATA_AT = 5 };

static void put(int fd, uint64_t offset, uint64_t value)
{
    struct err e = {0};
    value = htobe64(value);
    assert(qcow2_write_at(fd, offset, &value, sizeof value, &e) == 0);
}

/* A disk of 4 clusters: data, zeros, data, nothing. */
static int make_sound(void)
{
    static const struct qcow2_layout layout = {
        .l1 = L1_AT, .refcount_table = 1, .refcount_table_clusters = 1};
    struct err e = {0};
    int fd = memfd_create("layer", MFD_CLOEXEC);
    assert(fd >= 0 && ftruncate(fd, (off_t)FILE_CLUSTERS * QCOW2_CLUSTER) == 0);
    assert(qcow2_write_header(fd, 4ull * QCOW2_CLUSTER, &layout, &e) == 0);
    put(fd, L1_AT * (uint64_t)QCOW2_CLUSTER, L2_AT * (uint64_t)QCOW2_CLUSTER);
    put(fd, L2_AT * (uint64_t)QCOW2_CLUSTER, DATA_AT * (uint64_t)QCOW2_CLUSTER);
    put(fd, L2_AT * (uint64_t)QCOW2_CLUSTER + 8, 1);
    put(fd, L2_AT * (uint64_t)QCOW2_CLUSTER + 16, (DATA_AT + 1) * (uint64_t)QCOW2_CLUSTER);
    put(fd, DATA_AT * (uint64_t)QCOW2_CLUSTER, 42);
    return fd;
}

static void change(int fd, const uint8_t *p, size_t n)
{
    while (n >= 4) {
        uint64_t at =
            (uint64_t)(p[0] % FILE_CLUSTERS) * QCOW2_CLUSTER + (uint64_t)p[1] * 256 + p[2];
        size_t bytes = p[3] % 9;
        struct err e = {0};
        p += 4;
        n -= 4;
        bytes = bytes < n ? bytes : n;
        assert(qcow2_write_at(fd, at, p, bytes, &e) == 0);
        p += bytes;
        n -= bytes;
    }
}

static void check_merged(int fd)
{
    struct err e = {0};
    char one[4096];
    char other[4096];
    off_t bytes = lseek(fd, 0, SEEK_END);
    int again = memfd_create("again", MFD_CLOEXEC);
    assert(again >= 0 && disk_layers_merge(&fd, 1, again, &e) == 0);
    assert(lseek(again, 0, SEEK_END) == bytes);
    for (off_t at = 0; at < bytes; at += (off_t)sizeof one) {
        assert(pread(fd, one, sizeof one, at) == (ssize_t)sizeof one);
        assert(pread(again, other, sizeof other, at) == (ssize_t)sizeof other);
        assert(memcmp(one, other, sizeof one) == 0);
    }
    (void)close(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    int layers[] = {make_sound(), make_sound()};
    int out = memfd_create("out", MFD_CLOEXEC);
    assert(out >= 0);
    change(layers[1], data, size);
    if (disk_layers_merge(layers, 2, out, &e) == 0)
        check_merged(out);
    else
        assert(e.kind == ERR_INVALID);
    (void)close(layers[0]);
    (void)close(layers[1]);
    (void)close(out);
    return 0;
}
