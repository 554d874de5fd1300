/* SPDX-License-Identifier: Apache-2.0 */
/* Installing programs. */
#include "cli/programs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

enum { PROGRAM_MAX = 256 << 20 };

static const struct {
    const char *name;
    bool of_control;
    bool of_agent;
} programs[] = {{"torpor-agent", false, true}, {"torpor-shim", false, true},
    {"torpor-memory.so", false, true}, {"torpor-init", false, true}, {"torpor-envd", false, true},
    {"torpor-control", true, false}, {"torpor", false, false}};

static int find_folder(char dst[PATH_MAX], struct err *e)
{
    const char *given = getenv("TORPOR_PROGRAMS");
    ssize_t n;
    if (given && given[0]) {
        if (!realpath(given, dst))
            return err_sys(e, errno, "TORPOR_PROGRAMS=%s", given);
        return 0;
    }
    n = readlink("/proc/self/exe", dst, PATH_MAX - 1);
    if (n <= 0)
        return err_sys(e, errno, "/proc/self/exe");
    dst[n] = '\0';
    *strrchr(dst, '/') = '\0';
    return 0;
}

/* True when the two files have other contents, or the second one is missing. */
static int differs(const char *a, const char *b, bool *ret, struct err *e)
{
    AUTO_BUF struct buf one = BUF_INIT(PROGRAM_MAX);
    AUTO_BUF struct buf two = BUF_INIT(PROGRAM_MAX);
    struct err none = {0};
    if (io_read_file(AT_FDCWD, a, &one, e) < 0)
        return err_wrap(e, "the programs are not all in one folder (make up puts them there)");
    *ret =
        io_read_file(AT_FDCWD, b, &two, &none) < 0 || !slice_eq(buf_slice(&one), buf_slice(&two));
    return 0;
}

int programs_find(struct host_run *r, struct programs *ret, struct err *e)
{
    struct programs p = {.any_changed = false};
    if (find_folder(p.from, e) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        char from[PATH_MAX + 32];
        char to[PATH_MAX + 32];
        bool changed = true;
        (void)snprintf(from, sizeof from, "%s/%s", p.from, programs[i].name);
        (void)snprintf(to, sizeof to, "%s/bin/%s", r->home.data, programs[i].name);
        if (differs(from, to, &changed, e) < 0)
            return -1;
        p.any_changed |= changed;
        p.agent_changed |= changed && programs[i].of_agent;
        p.control_changed |= changed && programs[i].of_control;
    }
    *ret = p;
    return 0;
}

int programs_install(struct host_run *r, const struct programs *p, struct err *e)
{
    char path[PATH_MAX + 32];
    AUTO_CLOSE int bin = -1;
    (void)snprintf(path, sizeof path, "%s/bin", r->home.data);
    if (io_mkdir_p(path, 0755, e) < 0)
        return -1;
    bin = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (bin < 0)
        return err_sys(e, errno, "%s", path);
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        AUTO_BUF struct buf program = BUF_INIT(PROGRAM_MAX);
        (void)snprintf(path, sizeof path, "%s/%s", p->from, programs[i].name);
        if (io_read_file(AT_FDCWD, path, &program, e) < 0 ||
            io_replace_file(bin, programs[i].name, program.p, program.len, 0755, e) < 0)
            return -1;
    }
    return 0;
}
