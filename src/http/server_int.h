/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the server share. Who may touch what:
 *
 * - `struct http_server`: `config`, the descriptors: read-only once started. The rest: under
 * `lock`.
 * - `struct server_conn`: parked ones belong to epoll and are touched under `lock` only, to expire
 *   them. One that an event was delivered for belongs to the worker that got it (epoll is armed
 *   one-shot) until that worker parks or frees it; parking ends with the call that arms it. Taking
 *   and giving up go through `lock`, which is also what makes them ordered for the thread
 * sanitizer: it does not know that EPOLL_CTL_MOD releases and epoll_wait acquires.
 * - `struct http_exchange`: lives on the stack of the worker that serves it.
 *
 * pool.c runs the workers, conn.c moves connections between epoll and workers, exchange.c is the
 * request as a handler sees it, reply.c the response, upgrade.c the way out of HTTP, class.c bounds
 * kinds of work, server.c starts and stops.
 */
#ifndef TORPOR_HTTP_SERVER_INT_H
#define TORPOR_HTTP_SERVER_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "http/http_int.h"
#include "http/server.h"

/* An unread body of at most this many bytes is drained to keep the connection. */
enum { SERVER_DRAIN_BYTES_MAX = 256 * 1024 };

enum conn_phase {
    CONN_HEAD,   /* idle or in the middle of a head */
    CONN_DRAIN,  /* answered; the rest of a body is thrown away */
    CONN_LINGER, /* answered and half closed; thrown away until the client closes too */
};

/* One list each, because within one list deadlines come in (almost) ascending order. */
enum conn_timer { TIMER_IDLE, TIMER_HEAD, TIMER_LINGER, TIMER_COUNT };

struct conn_link {
    struct server_conn *prev;
    struct server_conn *next;
};

struct conn_list {
    struct server_conn *first;
    struct server_conn *last;
};

struct server_conn {
    struct http_server *server;
    struct http_input in;
    struct http_body body; /* of the request in progress, then of the one being drained */
    size_t drained;        /* bytes thrown away so far */
    int64_t deadline;      /* of the head, the drain or the lingering; 0 not set */
    enum conn_phase phase;
    bool expired;    /* under lock; its deadline has passed and it was shut down for reading */
    bool parked;     /* under lock; in a timer list */
    bool registered; /* in the epoll set, armed or not */
    bool over;       /* beyond connections_max: only the reserved class is served, once */
    enum conn_timer timer;
    struct conn_link all;
    struct conn_link timed;
};

struct class_state {
    const char *name;
    size_t max;
    size_t busy;
};

struct http_server {
    struct http_server_config config;
    int epoll_fd;
    int stop_fd;  /* eventfd, readable for ever once stopping */
    int timer_fd; /* fires at the earliest deadline */
    atomic_bool stopping;

    pthread_mutex_t lock;
    pthread_cond_t left; /* a worker has left */
    struct conn_list conns;
    size_t n_conns;
    struct conn_list timers[TIMER_COUNT];
    int64_t timer_at;        /* what timer_fd is set to, DEADLINE_NEVER when off */
    int64_t accept_again_at; /* after running out of descriptors; DEADLINE_NEVER otherwise */
    struct class_state classes[HTTP_CLASSES_MAX];
    size_t n_classed; /* requests of any class but the reserved one in their handlers */
    size_t n_workers;
    size_t n_waiting;    /* of them in, or on the way to, epoll_wait */
    pthread_t last_left; /* the worker that left last, to be joined by the next one */
    bool has_last_left;
};

enum reply_state {
    REPLY_NONE,
    REPLY_STREAM,
    REPLY_DONE,
    REPLY_BROKEN,
    REPLY_UPGRADED, /* 101: the descriptor speaks something else */
    REPLY_TAKEN     /* and is no longer ours */
};

struct http_exchange {
    struct http_server *server;
    struct server_conn *conn;
    struct http_request_head head;
    struct arena arena;
    struct buf headers; /* added by the handler */
    enum reply_state reply;
    enum err_kind broken_kind; /* why, where the reply is broken */
    int64_t deadline;          /* of waiting for the client, in all */
    int error_status;          /* not 0 in an error handler */
    int class;                 /* counted in, or HTTP_CLASS_RESERVED */
    bool continue_due;         /* the client waits for 100 Continue */
    bool close;                /* this exchange is the connection's last */
    bool bodiless;             /* HEAD, 204, 304 */
    bool chunked;
    bool until_close;
    uint64_t reply_left; /* of a declared length */
};

/* pool.c */
int server_pool_spawn(struct http_server *s, struct err *e);
/* Called before something that may block: makes sure that a worker waits for the next event. */
void server_pool_reserve(struct http_server *s);
/* Waits until all workers have left and joins them. */
void server_pool_join(struct http_server *s);

/* conn.c */
void server_accept(struct http_server *s);
void server_expire(struct http_server *s);
/* Takes the connection from epoll. Under lock. */
void server_conn_take_locked(struct http_server *s, struct server_conn *c);
/* Serves what came until it would wait, then parks or frees the connection. */
void server_conn_serve(struct http_server *s, struct server_conn *c);
void server_conn_free(struct http_server *s, struct server_conn *c);
/* shutdown(2) of every connection; parked ones both ways in any case. */
void server_conns_shutdown(struct http_server *s, int how);

/* exchange.c */
void exchange_init(struct http_exchange *x, struct http_server *s, struct server_conn *c);
/* Runs the handler for a parsed head, or answers `why`; completes the reply. */
void exchange_run(struct http_exchange *x);
void exchange_refuse(struct http_exchange *x, const struct err *why);
void exchange_done(struct http_exchange *x);
/* How long a read or write that begins now may wait for the client. */
struct http_patience exchange_patience(const struct http_exchange *x);

/* class.c */
/* Before a handler runs. -1 with ERR_NO_CAPACITY when the request's class is full. */
int server_class_enter(struct http_exchange *x, struct err *why);
/* After it; nothing was counted: nothing happens. */
void server_class_leave(struct http_exchange *x);

/* reply.c */
/* A status and nothing else. */
void reply_bare(struct http_exchange *x, int status);

/* timer.c */
void server_timer_add_locked(struct http_server *s, struct server_conn *c, enum conn_timer timer);
void server_timer_remove_locked(struct http_server *s, struct server_conn *c);
void server_timer_arm_locked(struct http_server *s, int64_t at);

#endif
