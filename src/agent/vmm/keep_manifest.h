/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kept set of files says about itself: manifest.json in its folder.
 *
 * {"format":1,"program":target,"bios":target,"version":text,"files":[{"name","target","exec",
 * "sha256","size","source":{"device","inode","size","mtime_ns"}}]}; the sources are those of the
 * start that looked last, so that the next one need not read them.
 */
#ifndef TORPOR_AGENT_VMM_KEEP_MANIFEST_H
#define TORPOR_AGENT_VMM_KEEP_MANIFEST_H

#include <sys/stat.h>

#include "agent/vmm/files.h"

enum {
    KEPT_DIGEST_CHARS = 64,
    KEPT_NAME_BYTES = 8, /* "0000", with room for all numbers of SHIM_FILES_MAX */
    KEPT_VERSION_BYTES = 32,
};

/* Which file a path on the host was. */
struct kept_source {
    int64_t device, inode, size, mtime_ns;
};

struct kept_file {
    struct kept_source source;
    int64_t size;
    char sha256[KEPT_DIGEST_CHARS + 1];
};

struct kept_set {
    struct vmm_files *files;               /* sources: <keep_dir>/<digest>/<name> */
    struct kept_file kept[SHIM_FILES_MAX]; /* of files->items */
    char version[KEPT_VERSION_BYTES];
    char digest[KEPT_DIGEST_CHARS + 1];
};

struct kept_source kept_source_of(const struct stat *st);
bool kept_source_equal(const struct kept_source *a, const struct kept_source *b);
/* The name of file number `i` in the set's folder. */
void kept_name(size_t i, char dst[KEPT_NAME_BYTES]);
/* True for exactly 64 lower-case hexadecimal digits. */
bool kept_digest_valid(const char *digest);

/* Stores the set's digest in it: SHA-256, in hex, over the sorted lines "target mode sha256". */
int kept_set_digest(struct kept_set *set, struct err *e);
/* Writes the manifest into the set's folder, atomically and durably. */
int kept_set_write(int dir_fd, const struct kept_set *set, struct err *e);
/* The set <keep_dir>/<digest>, NULL on failure: ERR_NOT_FOUND when there is none, another kind when
 * it is damaged: the manifest is not one, or not of that digest, or a file is missing or has
 * another size. Reads no contents. Freed with kept_set_free. */
struct kept_set *kept_set_read(const char *keep_dir, const char *digest, struct err *e);
/* Returns NULL; NULL is fine. */
struct kept_set *kept_set_free(struct kept_set *set);

#endif
