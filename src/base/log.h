/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line per event on standard error: time, level, module, message, key=value.
 *
 * A file that logs defines LOG_MODULE before including this. Request id and sandbox id of the
 * running thread come along by themselves (log_context_set). Control characters in the message
 * are written as \xNN, so nothing a client or guest sent can forge a line.
 */
#ifndef TORPOR_BASE_LOG_H
#define TORPOR_BASE_LOG_H

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_LEVEL_COUNT };

/* Lines above this level are dropped. Default LOG_INFO. Call before threads start. */
void log_set_level(enum log_level level);

/* Ids that this thread's lines carry until changed; NULL clears. Copied. */
void log_context_set(const char *request_id, const char *sandbox_id);
/* The thread's request id, "" if none. */
const char *log_context_request_id(void);

void log_line(enum log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_err(...) log_line(LOG_ERR, LOG_MODULE, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, LOG_MODULE, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, LOG_MODULE, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, LOG_MODULE, __VA_ARGS__)

/* For lines that a guest or client can cause: at most `LOG_RATE_PER_SEC` a second from one place;
 * how many were dropped is said on the next that passes. */
#define LOG_RATE_PER_SEC 10
struct log_rate {
    long long window_ms;
    int count;
    int dropped;
};
/* True when this line may be written. */
int log_rate_pass(struct log_rate *r);
#define log_warn_limited(...)                                                                      \
    do {                                                                                           \
        static struct log_rate log_rate_;                                                          \
        if (log_rate_pass(&log_rate_))                                                             \
            log_warn(__VA_ARGS__);                                                                 \
    } while (0)

#endif
