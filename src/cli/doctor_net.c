/* SPDX-License-Identifier: Apache-2.0 */
/* The probes for the network: TUN, nftables, others' rules, routes. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/doctor.h"

enum { TEXT_MAX = 4 << 20, IFNAME_MAX = 32 };

static void probe_tun(struct doctor *d)
{
    int rc = d->ops->open_device("/dev/net/tun");
    doctor_add(d, rc == 0 ? DOCTOR_OK : DOCTOR_MISSING, "tun", "guests have no network device",
        "modprobe tun; permission to open /dev/net/tun", "/dev/net/tun%s%s", rc == 0 ? "" : ": ",
        rc == 0 ? "" : strerror(-rc));
}

/* In a namespace that is gone when nft has ended. */
static void probe_nft(struct doctor *d)
{
    const char *as_root[] = {"unshare", "--net", "nft", "add", "table", "inet", "doctor", NULL};
    const char *as_user[] = {"unshare", "--user", "--map-root-user", "--net", "nft", "add", "table",
        "inet", "doctor", NULL};
    const char *version[] = {"nft", "--version", NULL};
    AUTO_BUF struct buf text = BUF_INIT(TEXT_MAX);
    AUTO_BUF struct buf ignored = BUF_INIT(TEXT_MAX);
    struct err e = {0};
    if (d->ops->run(version, &text, &e) < 0 || !text.p) {
        doctor_add(d, DOCTOR_MISSING, "nftables", "guests cannot be fenced in",
            "apt-get install nftables", "%s", e.msg);
        return;
    }
    if (d->ops->run(d->ops->is_root() ? as_root : as_user, &ignored, &e) == 0)
        doctor_add(d, DOCTOR_OK, "nftables", "", "", "%.*s, and the kernel takes a table",
            (int)strcspn(text.p, "\n"), text.p);
    else
        doctor_add(d, d->ops->is_root() ? DOCTOR_MISSING : DOCTOR_WARN, "nftables",
            "guests cannot be fenced in", "modprobe nf_tables; run doctor as root",
            "the kernel did not take a table");
}

/* A table of some installation of ours: "tp<n>" or "torpor<n>". */
static bool is_ours(const char *table, size_t n)
{
    return (n > 2 && memcmp(table, "tp", 2) == 0) || (n > 6 && memcmp(table, "torpor", 6) == 0);
}

/* The first base chain at forward, of another's table, that drops by policy, in the text of
 * `nft list chains`: "table FAMILY NAME {", "chain NAME {", "type ... hook forward ...; policy
 * drop;"
 */
static bool find_foreign(const char *text, char dst[128])
{
    char table[96] = "";
    bool ours = false;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "\n");
        char line[256];
        char family[16], name[64];
        (void)snprintf(line, sizeof line, "%.*s", (int)n, p);
        if (sscanf(line, " table %15s %63s", family, name) == 2) {
            (void)snprintf(table, sizeof table, "%s %s", family, name);
            ours = is_ours(name, strlen(name));
        } else if (!ours && strstr(line, "hook forward") && strstr(line, "policy drop")) {
            (void)snprintf(dst, 128, "%s", table);
            return true;
        }
        p += n + (p[n] == '\n');
    }
    return false;
}

static void probe_foreign(struct doctor *d)
{
    const char *argv[] = {"nft", "list", "chains", NULL};
    AUTO_BUF struct buf text = BUF_INIT(TEXT_MAX);
    struct err e = {0};
    char table[128];
    if (!d->ops->is_root())
        return; /* nothing can be seen */
    if (d->ops->run(argv, &text, &e) < 0)
        return; /* the line about nftables says it */
    if (!text.p || !find_foreign(text.p, table))
        doctor_add(d, DOCTOR_OK, "foreign rules", "", "", "no other table drops what is forwarded");
    else
        doctor_add(d, DOCTOR_WARN, "foreign rules",
            "guests may not reach the internet (Docker, ufw and firewalld do that)",
            "for that table: nft insert rule TABLE CHAIN iifname \"tp*\" accept, and the same with "
            "oifname",
            "table %s drops forwarded packets by default", table);
}

/* "10.11.0.0/16" as a number and a mask, host order. */
static bool parse_range(const char *text, uint32_t *ret_net, uint32_t *ret_mask)
{
    char address[INET_ADDRSTRLEN];
    struct in_addr in;
    const char *slash = strchr(text, '/');
    unsigned long bits = slash ? strtoul(slash + 1, NULL, 10) : 32;
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    if (bits < 1 || bits > 32 || !slice_copy_cstr(slice_of(text, n), address, sizeof address) ||
        inet_pton(AF_INET, address, &in) != 1)
        return false;
    *ret_mask = bits == 32 ? UINT32_MAX : ~(UINT32_MAX >> bits);
    *ret_net = ntohl(in.s_addr) & *ret_mask;
    return true;
}

/* The first interface with a route into the range that is not ours. /proc/net/route has the numbers
 * in network order, as the machine reads them: destination in column 2, mask in column 8. */
static bool find_route(const char *text, uint32_t net, uint32_t mask, char dst[IFNAME_MAX])
{
    const char *p = text + strcspn(text, "\n");
    while (*p) {
        char name[IFNAME_MAX];
        unsigned to, route_mask;
        uint32_t common;
        p++;
        if (sscanf(p, "%31s %x %*x %*x %*d %*d %*d %x", name, &to, &route_mask) == 3 &&
            route_mask != 0 && strncmp(name, "tp", 2) != 0 &&
            name[0] != '*' /* leads nowhere: unreachable, ours or not */) {
            common = ntohl(route_mask) & mask;
            if ((ntohl(to) & common) == (net & common)) {
                memcpy(dst, name, IFNAME_MAX);
                return true;
            }
        }
        p += strcspn(p, "\n");
    }
    return false;
}

static void probe_routes(struct doctor *d)
{
    AUTO_BUF struct buf text = BUF_INIT(TEXT_MAX);
    char name[IFNAME_MAX];
    uint32_t net, mask;
    if (!parse_range(d->net, &net, &mask))
        doctor_add(d, DOCTOR_MISSING, "routes", "the agent will not start",
            "set TORPOR_NET to a range such as 10.11.0.0/16", "TORPOR_NET=%s is no range", d->net);
    else if (doctor_read(d, "/proc/net/route", &text) && find_route(text.p, net, mask, name))
        doctor_add(d, DOCTOR_WARN, "routes", "sandboxes take addresses that belong to others",
            "set TORPOR_NET to a range that is free", "%s overlaps a route over %s", d->net, name);
    else
        doctor_add(d, DOCTOR_OK, "routes", "", "", "%s is free", d->net);
}

void doctor_probe_net(struct doctor *d)
{
    probe_tun(d);
    probe_nft(d);
    probe_foreign(d);
    probe_routes(d);
}
