/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing all slots of an instance by name but those that are kept, whatever made them.
 *
 * Theory of operation. Links go first: without its host end no slot can say anything. The kernel
 * takes down a link group at once, where one link after the other costs a grace period each: what
 * is to go is moved to a group of its own, which is deleted. Namespaces then only lose their names;
 * the kernel tears down nameless ones many at once. Whatever stops this midway, the names that are
 * left tell the next one what to do.
 */
#include "agent/net/net_int.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"

struct names {
    const struct net_plan *plan;
    const struct net_keep *keep;
    char prefix[NET_NAME_MAX + 1];
    char list[NET_SLOTS_MAX][NET_NAME_MAX + 1];
    size_t n;
};

static void names_add(const char *name, void *arg)
{
    struct names *all = arg;
    if (strncmp(name, all->prefix, strlen(all->prefix)) != 0 || strlen(name) > NET_NAME_MAX ||
        all->n == ARRAY_LEN(all->list))
        return;
    int slot = net_slot_of_name(all->plan, name);
    if (slot < 0 || !net_keep_has(all->keep, (unsigned)slot))
        (void)snprintf(all->list[all->n++], NET_NAME_MAX + 1, "%s", name);
}

static int join(int rc, int step_rc, const struct err *step, struct err *e)
{
    if (step_rc == 0)
        return rc;
    if (rc == 0)
        *e = *step;
    else
        (void)err_join(e, step);
    return -1;
}

/* A link that is gone meanwhile is fine. */
static int doom_link(const struct net_plan *p, const char *name, struct err *e)
{
    if (rtnl_link_set_group(name, net_doomed_group(p->instance), e) < 0 && e->errnum != ENODEV)
        return -1;
    return 0;
}

static int sweep_links(struct names *all, struct err *e)
{
    struct err step = {0};
    all->n = 0;
    int rc = join(0, rtnl_each_link(names_add, all, &step), &step, e);
    for (size_t i = 0; i < all->n; i++) {
        rc = join(rc, doom_link(all->plan, all->list[i], &step), &step, e);
        net_point("doomed link");
    }
    rc = join(rc, rtnl_group_delete(net_doomed_group(all->plan->instance), &step), &step, e);
    net_point("links");
    return rc;
}

static int list_namespaces(struct names *all, struct err *e)
{
    const struct dirent *entry;
    DIR *dir = opendir(NET_NETNS_DIR);
    all->n = 0;
    if (!dir)
        return errno == ENOENT ? 0 : err_sys(e, errno, "open " NET_NETNS_DIR);
    while ((entry = readdir(dir)))
        names_add(entry->d_name, all);
    (void)closedir(dir);
    return 0;
}

static int sweep_namespaces(struct names *all, struct err *e)
{
    struct err step = {0};
    char path[64];
    int rc = join(0, list_namespaces(all, &step), &step, e);
    for (size_t i = 0; i < all->n; i++) {
        (void)snprintf(path, sizeof path, NET_NETNS_DIR "/%s", all->list[i]);
        rc = join(rc, net_netns_remove(path, &step), &step, e);
        net_point("namespace");
    }
    return rc;
}

int net_slots_sweep(const struct net_plan *p, const struct net_keep *keep, struct err *e)
{
    struct err step = {0};
    AUTO_FREE struct names *all = calloc(1, sizeof *all);
    if (!all)
        return err_sys(e, ENOMEM, "sweep");
    all->plan = p;
    all->keep = keep;
    net_link_prefix(p->instance, all->prefix);
    int rc = join(0, sweep_links(all, &step), &step, e);
    return join(rc, sweep_namespaces(all, &step), &step, e);
}
