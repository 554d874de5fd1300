/* SPDX-License-Identifier: Apache-2.0 */
/* The user of the control plane and the data folder. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "cli/up.h"

#define DATA_BASE "/var/lib/torpor"

int up_user(struct host_run *r, struct err *e)
{
    const char *argv[] = {"/usr/sbin/useradd", "--system", "--user-group", "--no-create-home",
        "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", r->user, NULL};
    pid_t pid;
    int status;
    if (getpwnam(r->user))
        return 0;
    host_say(r, "making the system user %s for the control plane", r->user);
    if (proc_spawn(&(struct proc_spawn){.path = argv[0],
                       .argv = (char *const *)(uintptr_t)argv,
                       .fds = (const int[]){-1, STDERR_FILENO, STDERR_FILENO},
                       .n_fds = 3},
            &pid, e) < 0 ||
        proc_reap(pid, &status, e) < 0)
        return -1;
    return status == 0 ? 0 : err_set(e, ERR_INTERNAL, "useradd %s failed", r->user);
}

/* A folder of the same installation that everybody can reach: named after the checkout, and apart
 * from others of that name by a hash (FNV-1a) of the whole path. */
static void other_data(const struct home *h, char dst[PATH_MAX])
{
    char parent[sizeof h->home];
    uint64_t hash = 0xcbf29ce484222325;
    char *slash;
    memcpy(parent, h->home, sizeof parent);
    for (const char *p = parent; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
    slash = strrchr(parent, '/');
    if (slash)
        *slash = '\0';
    slash = strrchr(parent, '/');
    (void)snprintf(dst, PATH_MAX, "%s/%s-%010llx", DATA_BASE,
        slash && slash[1] ? slash + 1 : "root", (unsigned long long)(hash & 0xffffffffff));
}

int up_data(struct host_run *r, struct err *e)
{
    char path[PATH_MAX];
    const struct passwd *user = getpwnam(r->user);
    bool chosen = strcmp(r->home.home, r->home.data) != 0;
    if (!user)
        return err_set(e, ERR_NOT_FOUND, "there is no user %s", r->user);
    if (!chosen && !daemon_user_can(r, "/usr/bin/test", "-x", r->home.home)) {
        other_data(&r->home, path);
        host_say(r, "the user %s cannot reach %s: the data is in %s", r->user, r->home.home, path);
        if (home_move_data(&r->home, path, e) < 0)
            return -1;
    }
    if (io_mkdir_p(r->home.data, 0755, e) < 0)
        return -1;
    if (!daemon_user_can(r, "/usr/bin/test", "-x", r->home.data))
        return err_set(e, ERR_FORBIDDEN, "the user %s cannot reach %s", r->user, r->home.data);
    user = getpwnam(r->user);
    if (snprintf(path, sizeof path, "%s/control", r->home.data) >= (int)sizeof path)
        return err_set(e, ERR_INVALID, "path too long");
    if (io_mkdir_p(path, 0700, e) < 0)
        return -1;
    if (!user || chmod(path, 0700) < 0 || chown(path, user->pw_uid, user->pw_gid) < 0)
        return err_sys(e, errno, "%s", path);
    return 0;
}
