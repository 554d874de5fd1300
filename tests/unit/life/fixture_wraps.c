/* SPDX-License-Identifier: Apache-2.0 */
/* What the linker puts in place of fsync and of crash points. */
#include "fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/life/crash.h"

int sandbox_syncs;
int data_syncs;
bool folder_syncs_fail;

static bool is_folder(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

int __wrap_fsync(int fd);
int __real_fsync(int fd);
int __wrap_fsync(int fd)
{
    char link_path[64];
    char path[512] = "";
    (void)snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
    if (readlink(link_path, path, sizeof path - 1) > 0 && strstr(path, "/data/"))
        (void)__atomic_add_fetch(&data_syncs, 1, __ATOMIC_SEQ_CST);
    if (strstr(path, "/sandboxes/"))
        (void)__atomic_add_fetch(&sandbox_syncs, 1, __ATOMIC_SEQ_CST);
    if (folder_syncs_fail && strstr(path, "/sandboxes/") && is_folder(fd)) {
        errno = EIO;
        return -1;
    }
    return no_fsync ? 0 : __real_fsync(fd);
}

void __wrap_crash_point(const char *operation, const char *step, struct sandbox *s);
void __wrap_crash_point(const char *operation, const char *step, struct sandbox *s)
{
    if (on_crash_point)
        on_crash_point(operation, step);
}
