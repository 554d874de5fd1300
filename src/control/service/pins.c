/* SPDX-License-Identifier: Apache-2.0 */
/* Pins of snapshots; as many as there are creates from snapshots under way. */
#include "control/service/pins.h"

#include <assert.h>
#include <string.h>

#include "base/cleanup.h"

void pin_table_init(struct pin_table *t)
{
    *t = (struct pin_table){.held = NULL};
    (void)pthread_mutex_init(&t->mutex, NULL);
}

void pin_table_done(struct pin_table *t)
{
    assert(!t->held);
    (void)pthread_mutex_destroy(&t->mutex);
}

void pin_acquire(struct pin_table *t, const struct template_id *id, struct pin *ret)
{
    MUTEX_GUARD(&t->mutex);
    *ret = (struct pin){.table = t, .id = *id, .next = t->held};
    t->held = ret;
}

void pin_release(struct pin *p)
{
    struct pin_table *t = p->table;
    if (!t)
        return;
    MUTEX_GUARD(&t->mutex);
    for (struct pin **at = &t->held; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    p->table = NULL;
}

bool pin_is_held(struct pin_table *t, const struct template_id *id)
{
    MUTEX_GUARD(&t->mutex);
    for (const struct pin *p = t->held; p; p = p->next)
        if (strcmp(p->id.text, id->text) == 0)
            return true;
    return false;
}
