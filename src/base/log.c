/* SPDX-License-Identifier: Apache-2.0 */
/* Line logger: formats into one buffer and writes it with one write(2), so lines never interleave.
 */
#include "base/log.h"

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { LINE_MAX_BYTES = 1024, ID_MAX = 65 /* LIMIT_REQUEST_ID_MAX and a NUL */ };

static const char *const level_names[] = {"ERR", "WARN", "INFO", "DEBUG"};
static_assert(sizeof level_names / sizeof level_names[0] == LOG_LEVEL_COUNT, "a name per level");

static enum log_level max_level = LOG_INFO;
static _Thread_local char context_request_id[ID_MAX];
static _Thread_local char context_sandbox_id[ID_MAX];
static pthread_mutex_t rate_lock = PTHREAD_MUTEX_INITIALIZER;

void log_set_level(enum log_level level)
{
    max_level = level;
}

void log_context_set(const char *request_id, const char *sandbox_id)
{
    (void)snprintf(context_request_id, ID_MAX, "%s", request_id ? request_id : "");
    (void)snprintf(context_sandbox_id, ID_MAX, "%s", sandbox_id ? sandbox_id : "");
}

const char *log_context_request_id(void)
{
    return context_request_id;
}

/* Appends the message with control characters made visible. Returns the new length. */
static size_t append_escaped(char *line, size_t len, const char *msg)
{
    for (; *msg && len + 8 < LINE_MAX_BYTES; msg++) {
        unsigned char c = (unsigned char)*msg;
        if (c >= 0x20 && c != 0x7f)
            line[len++] = (char)c;
        else
            len += (size_t)snprintf(line + len, LINE_MAX_BYTES - len, "\\x%02x", c);
    }
    return len;
}

static size_t append_id(char *line, size_t len, const char *key, const char *id)
{
    if (!id[0] || len + strlen(key) + strlen(id) + 4 > LINE_MAX_BYTES)
        return len;
    len += (size_t)snprintf(line + len, LINE_MAX_BYTES - len, " %s=", key);
    return append_escaped(line, len, id);
}

void log_line(enum log_level level, const char *module, const char *fmt, ...)
{
    char msg[LINE_MAX_BYTES];
    char line[LINE_MAX_BYTES + 2];
    char now[CLOCK_RFC3339_MAX];
    va_list ap;
    size_t len;
    if (level > max_level)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof msg - 3 * ID_MAX, fmt, ap);
    va_end(ap);
    clock_format_rfc3339(clock_real_ms(), now);
    len = (size_t)snprintf(line, LINE_MAX_BYTES, "%s %s %s ", now, level_names[level], module);
    len = append_escaped(line, len, msg);
    len = append_id(line, len, "request_id", context_request_id);
    len = append_id(line, len, "sandbox_id", context_sandbox_id);
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* nobody is left to tell */
}

int log_rate_pass(struct log_rate *r)
{
    long long now = clock_mono_ms();
    int dropped = 0;
    int pass;
    (void)pthread_mutex_lock(&rate_lock);
    if (now - r->window_ms >= 1000) {
        dropped = r->dropped;
        *r = (struct log_rate){.window_ms = now};
    }
    pass = r->count < LOG_RATE_PER_SEC;
    if (pass)
        r->count++;
    else
        r->dropped++;
    (void)pthread_mutex_unlock(&rate_lock);
    if (dropped > 0)
        log_line(LOG_WARN, "log", "lines dropped count=%d", dropped);
    return pass;
}
