/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classes of work: how many requests of each may be in their handlers at once.
 *
 * Theory of operation: counters under the server's lock, changed before and after a handler. Where
 * there are classes, all of them together leave one worker free, and connections beyond
 * connections_max are read instead of refused unread: so a request of the reserved class (health
 * checks) always finds a connection and a thread, whatever the others do.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "http/server_int.h"

static int count_in(struct http_server *s, int class, struct err *why)
{
    MUTEX_GUARD(&s->lock);
    struct class_state *k = &s->classes[class];
    if (k->max > 0 && k->busy >= k->max)
        return err_set(why, ERR_NO_CAPACITY, "all %zu places for %s are taken", k->max, k->name);
    if (s->n_classed + 1 >= s->config.threads_max)
        return err_set(why, ERR_NO_CAPACITY, "all workers are busy");
    k->busy++;
    s->n_classed++;
    return 0;
}

int server_class_enter(struct http_exchange *x, struct err *why)
{
    struct http_server *s = x->server;
    int class = HTTP_CLASS_RESERVED;
    x->class = HTTP_CLASS_RESERVED;
    if (!s->config.classify)
        return 0;
    class = s->config.classify(&x->head, s->config.ctx);
    if (class < 0 || (size_t) class >= s->config.n_classes)
        return 0;
    if (x->conn->over)
        return err_set(why, ERR_NO_CAPACITY, "too many connections");
    if (count_in(s, class, why) < 0)
        return -1;
    x->class = class;
    return 0;
}

void server_class_leave(struct http_exchange *x)
{
    struct http_server *s = x->server;
    if (x->class == HTTP_CLASS_RESERVED)
        return;
    MUTEX_GUARD(&s->lock);
    s->classes[x->class].busy--;
    s->n_classed--;
}

size_t http_server_class_busy(struct http_server *s, size_t class)
{
    MUTEX_GUARD(&s->lock);
    return class < s->config.n_classes ? s->classes[class].busy : 0;
}
