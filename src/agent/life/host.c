/* SPDX-License-Identifier: Apache-2.0 */
/* Data folder, identity, instance lock, secret. */
#include "agent/life/host.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/life/instance.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/rand.h"
#include "json/json.h"

enum { FORMAT = 1, FILE_BYTES_MAX = 64 * 1024 };
static const int64_t reserve_min_bytes = 2LL << 30;

/* Parses a small JSON file of ours. `arena` must outlive the value. */
static int read_json(
    int dirfd, const char *path, struct arena *arena, const struct json_value **ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    if (io_read_file(dirfd, path, &text, e) < 0)
        return -1;
    if (json_parse(buf_slice(&text), arena, ret, e) < 0)
        return err_wrap(e, "%s", path);
    return 0;
}

static struct slice json_text(const struct json_value *v, const char *key)
{
    const struct json_value *m = json_get(v, key);
    return m && m->type == JSON_STRING ? m->string : (struct slice){0};
}

static int write_identity(const struct host *h, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    struct json_writer w;
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, "format");
    json_int(&w, FORMAT);
    json_key(&w, "host_id");
    json_cstr(&w, h->id.text);
    json_key(&w, "cluster_id");
    json_cstr(&w, h->cluster_id.text);
    json_key(&w, "instance");
    json_int(&w, (int64_t)h->instance);
    json_object_end(&w);
    buf_append_char(&text, '\n');
    if (text.failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    return io_replace_file(h->dir_fd, "host.json", text.p, text.len, 0644, e);
}

/* Reads host.json; a missing one gives fresh ids and no instance. */
static int read_identity(struct host *h, int *ret_instance, struct err *e)
{
    struct arena arena;
    const struct json_value *v = NULL;
    const struct json_value *format;
    const struct json_value *instance;
    int rc = 0;
    arena_init(&arena, FILE_BYTES_MAX * 4);
    *ret_instance = INSTANCE_NONE;
    if (read_json(h->dir_fd, "host.json", &arena, &v, e) < 0) {
        arena_done(&arena);
        if (e->errnum != ENOENT)
            return -1;
        host_id_new(&h->id);
        host_id_new(&h->cluster_id);
        return 0;
    }
    format = json_get(v, "format");
    instance = json_get(v, "instance");
    if (!format || format->type != JSON_INT || format->integer != FORMAT)
        rc = err_set(
            e, ERR_UNSUPPORTED, "host.json: the data folder has a format other than %d", FORMAT);
    else if (!host_id_parse(json_text(v, "host_id"), &h->id) ||
             !host_id_parse(json_text(v, "cluster_id"), &h->cluster_id))
        rc = err_set(e, ERR_INVALID, "host.json: host_id or cluster_id is malformed");
    else if (instance && instance->type == JSON_INT && instance->integer >= 0 &&
             instance->integer < INSTANCES)
        *ret_instance = (int)instance->integer;
    arena_done(&arena);
    return rc;
}

/* One agent per data folder, whatever its instance. */
static int lock_data_folder(const struct host *h, struct err *e)
{
    if (flock(h->dir_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    return errno == EWOULDBLOCK ? err_set(e, ERR_CONFLICT, "another agent serves %s", h->dir)
                                : err_sys(e, errno, "lock %s", h->dir);
}

static int open_run_folder(const char *path, struct err *e)
{
    int fd;
    if (mkdir(path, 0711) < 0 && errno != EEXIST)
        return err_sys(e, errno, "mkdir %s", path);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open %s", path) : fd;
}

/* Reads the cluster secret; makes it once. */
static int load_secret(struct host *h, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(HOST_SECRET_BYTES);
    if (io_read_file(h->dir_fd, "cluster-secret", &text, e) == 0) {
        if (text.len != HOST_SECRET_BYTES)
            return err_set(e, ERR_INVALID, "cluster-secret: not %d bytes", HOST_SECRET_BYTES);
        memcpy(h->secret, text.p, HOST_SECRET_BYTES);
        return 0;
    }
    if (e->errnum != ENOENT)
        return -1;
    rand_bytes(h->secret, sizeof h->secret);
    return io_replace_file(h->dir_fd, "cluster-secret", h->secret, sizeof h->secret, 0400, e);
}

static int take_instance(struct host *h, const char *run_base, int wanted, struct err *e)
{
    const struct instance_owner owner = {.host_id = h->id.text, .dir = h->dir};
    h->lock_fd = instance_take(run_base, &owner, wanted, &h->instance, e);
    return h->lock_fd < 0 ? -1 : 0;
}

static int open_all(struct host *h, const char *dir, const char *run_base, struct err *e)
{
    int wanted;
    if (io_mkdir_p(dir, 0755, e) < 0 || !realpath(dir, h->dir))
        return err_sys(e, errno, "open data folder %s", dir);
    h->dir_fd = open(h->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (h->dir_fd < 0)
        return err_sys(e, errno, "open %s", h->dir);
    if (lock_data_folder(h, e) < 0 || read_identity(h, &wanted, e) < 0 ||
        io_mkdir_p(run_base, 0755, e) < 0 || take_instance(h, run_base, wanted, e) < 0 ||
        load_secret(h, e) < 0)
        return -1;
    if (wanted != (int)h->instance && write_identity(h, e) < 0)
        return -1;
    if (snprintf(h->run_dir, sizeof h->run_dir, "%s/%u", run_base, h->instance) >=
        (int)sizeof h->run_dir)
        return err_set(e, ERR_INVALID, "run folder longer than %zu bytes", sizeof h->run_dir - 1);
    h->run_fd = open_run_folder(h->run_dir, e);
    h->sandboxes_fd = h->run_fd < 0 ? -1 : io_open_folder(h->dir_fd, "sandboxes", e);
    return h->sandboxes_fd < 0 ? -1 : 0;
}

int host_open(struct host *h, const char *dir, const char *run_base, struct err *e)
{
    *h = (struct host){.dir_fd = -1, .sandboxes_fd = -1, .run_fd = -1, .lock_fd = -1};
    h->epoch = (uint64_t)clock_real_ms();
    if (open_all(h, dir, run_base, e) == 0)
        return 0;
    host_done(h);
    return -1;
}

void host_done(struct host *h)
{
    int fds[] = {h->sandboxes_fd, h->run_fd, h->lock_fd, h->dir_fd};
    if (h->run_dir[0])
        (void)rmdir(h->run_dir);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    OPENSSL_cleanse(h->secret, sizeof h->secret);
    h->dir_fd = h->sandboxes_fd = h->run_fd = h->lock_fd = -1;
}

int host_token(const struct host *h, const struct sandbox_id *id, unsigned token_epoch,
    char ret[HOST_TOKEN_CHARS + 1], struct err *e)
{
    unsigned char mac[32];
    unsigned len = sizeof mac;
    char text[64];
    int n = snprintf(text, sizeof text, "envd-token:%s:%u", id->text, token_epoch);
    if (!HMAC(EVP_sha256(), h->secret, sizeof h->secret, (const unsigned char *)text, (size_t)n,
            mac, &len) ||
        len != sizeof mac)
        return err_set(e, ERR_INTERNAL, "HMAC failed");
    hex_encode(mac, sizeof mac, ret);
    return 0;
}

int host_kernel_find(const struct host *h, struct host_kernel *ret, struct err *e)
{
    int n = snprintf(ret->vmlinux, sizeof ret->vmlinux, "%s/kernels/current/vmlinux", h->dir);
    int m = snprintf(ret->initrd, sizeof ret->initrd, "%s/kernels/current/initrd", h->dir);
    if (n >= (int)sizeof ret->vmlinux || m >= (int)sizeof ret->initrd)
        return err_set(e, ERR_INVALID, "path too long");
    if (access(ret->vmlinux, R_OK) < 0 || access(ret->initrd, R_OK) < 0)
        return err_sys(e, errno, "no guest kernel in the data folder");
    return 0;
}

int host_disk_spare(
    const struct host *h, int64_t *ret_spare_bytes, int64_t *ret_free_bytes, struct err *e)
{
    struct statvfs v;
    int64_t reserve;
    if (fstatvfs(h->dir_fd, &v) < 0)
        return err_sys(e, errno, "statvfs");
    reserve = (int64_t)v.f_blocks * (int64_t)v.f_frsize / 10;
    if (reserve < reserve_min_bytes)
        reserve = reserve_min_bytes;
    *ret_free_bytes = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    *ret_spare_bytes = *ret_free_bytes - reserve;
    return 0;
}
