/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base templates as they lie in the data folder: images/<name> is a link to images/<digest>/, which
 * holds rootfs.img and manifest.json. The scripts in images/ make them, also beside a running
 * agent, so nothing is remembered here: each call looks.
 *
 * A script whose image takes long holds a lock (flock) on images/<name>.building. Until there is a
 * first image, a held lock means that waiting helps; a dead builder holds none.
 */
#ifndef TORPOR_AGENT_LIFE_TEMPLATES_H
#define TORPOR_AGENT_LIFE_TEMPLATES_H

#include "agent/life/host.h"

struct host_template {
    char name[65];
    bool building; /* its first image is being made; then all but the name is empty */
    char digest[72];
    char image[HOST_PATH_MAX]; /* rootfs.img, by its digest: stays when the name moves on */
    uint64_t size_bytes;       /* of the disk */
    int64_t allocated_bytes;   /* what the file takes on the host */
    int64_t created_at_ms;
    char default_user[33];
};

/* Finds an image to create from. ERR_NOT_FOUND when there is none, ERR_TEMPLATE_BUILDING when the
 * first one is being made, ERR_INVALID when its manifest is damaged. `name` is validated here
 * again. */
int host_template_find(
    const struct host *h, struct slice name, struct host_template *ret, struct err *e);

/* The image with that digest, whatever its name stands for now. ERR_NOT_FOUND. */
int host_image_find(
    const struct host *h, const char *digest, struct host_template *ret, struct err *e);

/* Calls `each` for every base template on disk and for those being built the first time. Damaged
 * ones are left out and logged. Callable from any thread. */
int host_templates_each(const struct host *h,
    void (*each)(void *ctx, const struct host_template *template), void *ctx, struct err *e);

#endif
