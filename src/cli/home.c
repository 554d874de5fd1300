/* SPDX-License-Identifier: Apache-2.0 */
/* Folders and notes of an installation. */
#include "cli/home.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/settings.h"

enum { NOTE_MAX = 1024, FILE_MAX = 8192 };

/* The first line of a small file. */
static int read_line(int at, const char *path, char *dst, size_t dst_size, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_MAX);
    if (io_read_file(at, path, &text, e) < 0)
        return -1;
    if (!text.p || !slice_copy_cstr(slice_of(text.p, strcspn(text.p, "\n")), dst, dst_size))
        return err_set(e, ERR_INVALID, "%s is malformed", path);
    return 0;
}

static int boot_id(char dst[HOME_BOOT_ID_MAX], struct err *e)
{
    return read_line(AT_FDCWD, "/proc/sys/kernel/random/boot_id", dst, HOME_BOOT_ID_MAX, e);
}

int home_find(struct home *ret, struct err *e)
{
    char path[PATH_MAX];
    char file[PATH_MAX];
    struct err none = {0};
    *ret = (struct home){.fd = -1, .lock_fd = -1};
    if (settings_home(path, e) < 0)
        return -1;
    if (!slice_copy_cstr(slice_cstr(path), ret->home, sizeof ret->home))
        return err_set(e, ERR_INVALID, "TORPOR_DIR is too long");
    memcpy(ret->data, ret->home, sizeof ret->data);
    (void)snprintf(file, sizeof file, "%s/location", ret->home);
    if (read_line(AT_FDCWD, file, ret->data, sizeof ret->data, &none) < 0 &&
        none.errnum != ENOENT && none.errnum != ENOTDIR) {
        *e = none;
        return -1;
    }
    return 0;
}

static int take_lock(struct home *h, void (*waiting)(void *ctx), void *ctx, struct err *e)
{
    h->lock_fd = openat(h->fd, "run/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (h->lock_fd < 0)
        return err_sys(e, errno, "%s/run/lock", h->home);
    if (flock(h->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (waiting)
        waiting(ctx);
    while (flock(h->lock_fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return err_sys(e, errno, "lock %s", h->home);
    return 0;
}

int home_open(struct home *ret, void (*waiting)(void *ctx), void *ctx, struct err *e)
{
    static const char *const parts[] = {"run", "log"};
    char path[PATH_MAX];
    if (home_find(ret, e) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", ret->home, parts[i]);
        if (io_mkdir_p(path, 0755, e) < 0)
            return -1;
    }
    ret->fd = open(ret->home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (ret->fd < 0)
        return err_sys(e, errno, "%s", ret->home);
    if (take_lock(ret, waiting, ctx, e) < 0) {
        home_close(ret);
        return -1;
    }
    return 0;
}

void home_close(struct home *h)
{
    if (h->lock_fd > 0)
        (void)close(h->lock_fd);
    if (h->fd > 0)
        (void)close(h->fd);
    h->fd = h->lock_fd = -1;
}

int home_move_data(struct home *h, const char *data, struct err *e)
{
    char line[PATH_MAX];
    int n = snprintf(line, sizeof line, "%s\n", data);
    if (!slice_copy_cstr(slice_cstr(data), h->data, sizeof h->data))
        return err_set(e, ERR_INVALID, "the data folder's path is too long");
    return io_replace_file(h->fd, "location", line, (size_t)n, 0644, e);
}

int home_note(
    struct home *h, const char *name, const struct proc_id *id, const char *words, struct err *e)
{
    char boot[HOME_BOOT_ID_MAX];
    char line[NOTE_MAX];
    AUTO_CLOSE int run = openat(h->fd, "run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int n;
    if (run < 0)
        return err_sys(e, errno, "%s/run", h->home);
    if (boot_id(boot, e) < 0)
        return -1;
    n = snprintf(
        line, sizeof line, "%d %" PRIu64 " %s %s\n", (int)id->pid, id->start_ticks, boot, words);
    if (n >= (int)sizeof line)
        return err_set(e, ERR_PROTOCOL, "torpor-%s said too much", name);
    return io_replace_file(run, name, line, (size_t)n, 0644, e);
}

bool home_noted(const struct home *h, const char *name, struct note *ret)
{
    char path[PATH_MAX];
    char line[NOTE_MAX];
    struct err e = {0};
    int pid;
    int at = 0;
    struct note n = {0};
    (void)snprintf(path, sizeof path, "%s/run/%s", h->home, name);
    if (read_line(AT_FDCWD, path, line, sizeof line, &e) < 0 ||
        sscanf(line, "%d %" SCNu64 " %39s%n", &pid, &n.id.start_ticks, n.boot, &at) < 3 || pid <= 0)
        return false;
    n.id.pid = pid;
    (void)snprintf(n.words, sizeof n.words, "%s", line[at] ? line + at + 1 : "");
    *ret = n;
    return true;
}

void home_forget(struct home *h, const char *name)
{
    char path[64];
    (void)snprintf(path, sizeof path, "run/%s", name);
    (void)unlinkat(h->fd, path, 0);
}

bool note_is_of_this_boot(const struct note *n)
{
    char boot[HOME_BOOT_ID_MAX];
    struct err e = {0};
    return boot_id(boot, &e) == 0 && strcmp(boot, n->boot) == 0;
}

bool note_is_alive(const struct note *n)
{
    return note_is_of_this_boot(n) && proc_is_alive(&n->id);
}

bool note_word(const struct note *n, const char *name, char *dst, size_t dst_size)
{
    size_t len = strlen(name);
    const char *p = n->words;
    while (*p) {
        size_t word = strcspn(p, " ");
        if (word > len && memcmp(p, name, len) == 0 && p[len] == '=')
            return slice_copy_cstr(slice_of(p + len + 1, word - len - 1), dst, dst_size);
        p += word + (p[word] == ' ');
    }
    return false;
}
