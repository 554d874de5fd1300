/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /metrics: Prometheus text, version 0.0.4.
 *
 * Label values are names of ours or checked ids, so nothing is ever escaped.
 */
#include "control/api/api_int.h"

#include <assert.h>
#include <inttypes.h>

enum { METRICS_BODY_MAX = 256 * 1024, MS_PER_SEC = 1000, US_PER_SEC = 1000000 };

static void family(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void gauge(struct buf *b, const char *name, const char *help, int64_t v)
{
    family(b, name, "gauge", help);
    buf_printf(b, "%s %" PRId64 "\n", name, v);
}

static void write_sandboxes(struct buf *b, const struct service_stats *s)
{
    family(b, "torpor_sandboxes", "gauge", "Sandboxes in the database by status.");
    for (int i = 0; i < SANDBOX_STATUS_COUNT; i++)
        buf_printf(b, "torpor_sandboxes{status=\"%s\"} %" PRIu64 "\n",
            sandbox_status_name((enum sandbox_status)i), s->sandboxes[i]);
    gauge(b, "torpor_removals_pending", "Sandboxes that are over and not yet off the host.",
        (int64_t)s->removals);
}

static void write_unknown(struct buf *b, const struct service_stats *s)
{
    gauge(b, "torpor_unknown_sandboxes", "Sandboxes that the host has and the database has not.",
        (int64_t)s->n_unknown);
    if (s->n_unknown == 0)
        return;
    family(b, "torpor_unknown_sandbox", "gauge", "The first of them by id.");
    for (size_t i = 0; i < s->n_unknown && i < UNKNOWN_MAX; i++)
        buf_printf(b, "torpor_unknown_sandbox{sandbox_id=\"%s\"} 1\n", s->unknown[i]);
}

static void write_host(struct buf *b, const struct service_stats *s)
{
    gauge(b, "torpor_agent_up", "1 when the last look at the host's agent worked.", s->agent_up);
    if (s->poll_age_ms >= 0) {
        family(b, "torpor_agent_poll_age_seconds", "gauge", "Since the agent's last answer.");
        buf_printf(b, "torpor_agent_poll_age_seconds %" PRId64 ".%03" PRId64 "\n",
            s->poll_age_ms / MS_PER_SEC, s->poll_age_ms % MS_PER_SEC);
    }
    if (s->host.text[0]) {
        family(b, "torpor_host_info", "gauge", "The host that answered last.");
        buf_printf(b, "torpor_host_info{host_id=\"%s\"} 1\n", s->host.text);
    }
    if (!s->has_capacity)
        return;
    gauge(b, "torpor_host_memory_mb_total", "Memory that sandboxes may have together.",
        s->memory_mb_total);
    gauge(b, "torpor_host_memory_mb_used", "Memory that sandboxes have.", s->memory_mb_used);
    gauge(b, "torpor_host_slots_total", "Sandboxes that may run at once.", s->slots_total);
    gauge(b, "torpor_host_slots_used", "Network slots in use.", s->slots_used);
    gauge(b, "torpor_host_disk_free_bytes", "Free bytes of the data folder.", s->disk_free_bytes);
}

static const char *const bounds[] = {"0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1",
    "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"};
static_assert(ARRAY_LEN(bounds) == AGENT_HISTOGRAM_BUCKETS, "one for each bucket");

static void write_histogram(struct buf *b, const struct phase_histogram *h)
{
    for (size_t i = 0; i < AGENT_HISTOGRAM_BUCKETS; i++)
        buf_printf(b, "torpor_%s_seconds_bucket{phase=\"%s\",le=\"%s\"} %" PRIu64 "\n", h->name,
            h->phase, bounds[i], h->buckets[i]);
    buf_printf(b, "torpor_%s_seconds_sum{phase=\"%s\"} %" PRIu64 ".%06" PRIu64 "\n", h->name,
        h->phase, h->sum_us / US_PER_SEC, h->sum_us % US_PER_SEC);
    buf_printf(
        b, "torpor_%s_seconds_count{phase=\"%s\"} %" PRIu64 "\n", h->name, h->phase, h->count);
}

static bool is_first_of_name(const struct service_stats *s, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (strcmp(s->histograms[j].name, s->histograms[i].name) == 0)
            return false;
    return true;
}

/* All of a family stand together. */
static void write_histograms(struct buf *b, const struct service_stats *s)
{
    for (size_t i = 0; i < s->n_histograms; i++) {
        const char *name = s->histograms[i].name;
        if (!is_first_of_name(s, i))
            continue;
        buf_printf(b,
            "# HELP torpor_%s_seconds Phases, since the agent's start.\n"
            "# TYPE torpor_%s_seconds histogram\n",
            name, name);
        for (size_t j = i; j < s->n_histograms; j++)
            if (strcmp(s->histograms[j].name, name) == 0)
                write_histogram(b, &s->histograms[j]);
    }
}

static void write_requests(struct buf *b, const struct api *api)
{
    family(b, "torpor_http_requests_total", "counter", "Answers by route and status class.");
    for (size_t i = 0; i <= n_api_routes; i++)
        for (int class = 0; class < STATUS_CLASSES; class ++) {
            uint64_t n = __atomic_load_n(&api->answers[i][class], __ATOMIC_RELAXED);
            if (n > 0)
                buf_printf(b,
                    "torpor_http_requests_total{method=\"%s\",route=\"%s\",class=\"%dxx\"} %" PRIu64
                    "\n",
                    i < n_api_routes ? api_routes[i].method : "",
                    i < n_api_routes ? api_routes[i].path : "", class + 1, n);
        }
}

static void write_work(struct buf *b, const struct api *api)
{
    static const char *const names[] = {"short", "life", "exec", "files"};
    static_assert(ARRAY_LEN(names) == WORK_COUNT, "a name for each");
    family(b, "torpor_http_busy", "gauge", "Requests that are being worked on, by kind of work.");
    for (int i = 0; i < WORK_COUNT; i++)
        buf_printf(b, "torpor_http_busy{work=\"%s\"} %zu\n", names[i],
            http_server_class_busy(api->server, (size_t)i));
}

int meta_metrics(struct call *c, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(METRICS_BODY_MAX);
    struct service_stats stats;
    if (service_stats(c->service, &stats, e) < 0)
        return -1;
    write_sandboxes(&body, &stats);
    write_unknown(&body, &stats);
    write_host(&body, &stats);
    write_histograms(&body, &stats);
    write_requests(&body, c->api);
    write_work(&body, c->api);
    if (body.failed)
        return err_set(e, ERR_NOMEM, "the answer does not fit into memory");
    return reply_bytes(c, HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&body));
}
