/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table by uuid. The ids are random, so their first bytes are the hash. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/snap/generations_int.h"

enum { BUCKETS_FIRST = 64 };

static size_t bucket_of(const struct uuid *id, size_t n_buckets)
{
    uint64_t hash;
    memcpy(&hash, id->bytes, sizeof hash);
    return (size_t)hash & (n_buckets - 1);
}

int uuid_table_init(struct uuid_table *t, struct err *e)
{
    t->n = 0;
    t->n_buckets = BUCKETS_FIRST;
    t->buckets = calloc(BUCKETS_FIRST, sizeof *t->buckets);
    return t->buckets ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

void uuid_table_done(struct uuid_table *t)
{
    for (size_t i = 0; t->buckets && i < t->n_buckets; i++) {
        while (t->buckets[i]) {
            struct uuid_node *node = t->buckets[i];
            t->buckets[i] = node->next;
            free(node);
        }
    }
    free(t->buckets);
    *t = (struct uuid_table){0};
}

struct uuid_node *uuid_table_find(const struct uuid_table *t, const struct uuid *id)
{
    struct uuid_node *node = t->buckets[bucket_of(id, t->n_buckets)];
    while (node && !uuid_equal(&node->id, id))
        node = node->next;
    return node;
}

static void grow(struct uuid_table *t)
{
    size_t n_buckets = t->n_buckets * 2;
    struct uuid_node **buckets = calloc(n_buckets, sizeof *buckets);
    if (!buckets)
        return;
    for (size_t i = 0; i < t->n_buckets; i++) {
        while (t->buckets[i]) {
            struct uuid_node *node = t->buckets[i];
            struct uuid_node **to = &buckets[bucket_of(&node->id, n_buckets)];
            t->buckets[i] = node->next;
            node->next = *to;
            *to = node;
        }
    }
    free(t->buckets);
    t->buckets = buckets;
    t->n_buckets = n_buckets;
}

void uuid_table_insert(struct uuid_table *t, struct uuid_node *node)
{
    struct uuid_node **to;
    if (t->n >= t->n_buckets)
        grow(t);
    to = &t->buckets[bucket_of(&node->id, t->n_buckets)];
    node->next = *to;
    *to = node;
    t->n++;
}

void uuid_table_remove(struct uuid_table *t, const struct uuid_node *node)
{
    struct uuid_node **at = &t->buckets[bucket_of(&node->id, t->n_buckets)];
    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    t->n--;
}

void uuid_table_each(
    const struct uuid_table *t, void (*visit)(struct uuid_node *, void *), void *ctx)
{
    for (size_t i = 0; i < t->n_buckets; i++)
        for (struct uuid_node *node = t->buckets[i]; node; node = node->next)
            visit(node, ctx);
}
