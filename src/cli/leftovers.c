/* SPDX-License-Identifier: Apache-2.0 */
/* Looking for what an agent could have left. Only names that carry the instance's number count. */
#include "cli/leftovers.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "cli/tool.h"

enum { CMDLINE_MAX = 64 * 1024, TABLES_MAX = 1 << 20 };

static void close_dir(DIR *const *d)
{
    if (*d)
        (void)closedir(*d);
}

/* Entries of a folder that begin with `prefix`, each as "<what> <name>". */
static void list_names(const char *folder, const char *prefix, const char *what, struct buf *ret)
{
    CLEANUP(close_dir) DIR *d = opendir(folder);
    const struct dirent *ent;
    while (d && (ent = readdir(d)))
        if (strncmp(ent->d_name, prefix, strlen(prefix)) == 0)
            buf_printf(ret, "%s %s\n", what, ent->d_name);
}

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t len = strlen(end);
    return n >= len && memcmp(s + n - len, end, len) == 0;
}

static int list_tables(unsigned instance, struct buf *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(TABLES_MAX);
    const char *argv[] = {"nft", "list", "tables", NULL};
    char names[2][24];
    (void)snprintf(names[0], sizeof names[0], " tp%u", instance);
    (void)snprintf(names[1], sizeof names[1], " torpor%u", instance);
    if (tool_run(argv, &text, e) < 0)
        return -1;
    for (const char *p = text.p; p && *p;) {
        size_t n = strcspn(p, "\n");
        if (ends_with(p, n, names[0]) || ends_with(p, n, names[1]))
            buf_printf(ret, "nftables %.*s\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
    return 0;
}

/* True for a command line of a shim of the instance: its first word is one, and a later one is in
 * the instance's run folder. */
static bool is_shim(const struct buf *cmdline, const char *folder)
{
    size_t first = strlen(cmdline->p);
    if (!ends_with(cmdline->p, first, "/torpor-shim"))
        return false;
    for (size_t at = first + 1; at < cmdline->len; at += strlen(cmdline->p + at) + 1)
        if (strstr(cmdline->p + at, folder))
            return true;
    return false;
}

static void list_shims(unsigned instance, struct buf *ret)
{
    CLEANUP(close_dir) DIR *d = opendir("/proc");
    const struct dirent *ent;
    char folder[32];
    (void)snprintf(folder, sizeof folder, "/torpor/%u/", instance);
    while (d && (ent = readdir(d))) {
        AUTO_BUF struct buf cmdline = BUF_INIT(CMDLINE_MAX);
        struct err none = {0};
        char path[300];
        (void)snprintf(path, sizeof path, "/proc/%s/cmdline", ent->d_name);
        if (strspn(ent->d_name, "0123456789") == strlen(ent->d_name) &&
            io_read_file(AT_FDCWD, path, &cmdline, &none) == 0 && cmdline.len > 0 &&
            is_shim(&cmdline, folder))
            buf_printf(ret, "process %s torpor-shim\n", ent->d_name);
    }
}

int leftovers_find(unsigned instance, struct buf *ret, struct err *e)
{
    char prefix[24];
    (void)snprintf(prefix, sizeof prefix, "tp%u-", instance);
    list_names("/sys/class/net", prefix, "network device", ret);
    list_names("/run/netns", prefix, "network namespace", ret);
    list_shims(instance, ret);
    return list_tables(instance, ret, e);
}
