/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to sandboxes, and what there must be after it; for power cuts and for faults. */
#ifndef TORPOR_TESTS_DURABILITY_SCENES_H
#define TORPOR_TESTS_DURABILITY_SCENES_H

#include "fixture.h"

enum { SCENE_OPS_MAX = 4 };

/* What a sandbox is when no VM is left. */
enum fate {
    ABSENT,
    BOOTS,    /* it ran and has no generation of its own: its disk */
    RESTORES, /* it ran: its last generation */
    SLEEPS,
};

struct outcome {
    enum fate fate;
    int count; /* in its memory */
};

struct world {
    struct outcome sandbox;
    struct outcome other;
    int a, b; /* what is counted in the templates; 0: there is none */
};

/* Returns -1 with an error where what was asked for was not done. */
typedef int scene_op(struct fixture *f, struct err *e);

struct scene {
    const char *name;
    bool warm;
    void (*prepare)(struct fixture *f);
    scene_op *ops[SCENE_OPS_MAX + 1];       /* up to a NULL */
    struct world worlds[SCENE_OPS_MAX + 1]; /* before the first, after each */
    int counted; /* in the memory of the sandbox after the last, when it runs or has been woken */
};

extern const struct scene scenes[];
extern const size_t n_scenes;

/* Who takes part in the scene that is being played. */
struct cast {
    struct sandbox_id id, other;
    struct template_id a, b;
};
extern struct cast cast;
void cast_new(void);

/* A host that has not been opened yet. */
struct fixture *scene_host(const struct scene *s);
void scene_host_free(struct fixture *f);

/* A disk that QEMU could open. */
int check_disk(int fd, struct err *e);

/* Whether the sandbox is what is said; without touching it. */
bool outcome_is(struct fixture *f, const struct sandbox_id *id, const struct outcome *o);
/* It can be used as it should be: resumed, its memory is that, it sleeps and wakes again. */
void outcome_check(struct fixture *f, const struct sandbox_id *id, const struct outcome *o);
bool has_template(struct fixture *f, const struct template_id *id);
/* Sandboxes from the template work. */
void template_check(struct fixture *f, const struct template_id *id, int count);

/* Every blob has a generation that names it, and its sums; every generation somebody who names it;
 * nothing else is there. */
void assert_no_leaks(const char *data_dir);
/* Everything goes, and nothing stays. */
void remove_everything(struct fixture *f);

#endif
