/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-exit ownership: memory, descriptors, streams of the caller, mutexes.
 *
 * Descriptors start at -1. What leaves the scope alive is handed over with TAKE_FD or TAKE_PTR.
 */
#ifndef TORPOR_BASE_CLEANUP_H
#define TORPOR_BASE_CLEANUP_H

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_close_(const int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd);
        errno = saved;
    }
}

static inline void cleanup_unlock_(pthread_mutex_t *const *m)
{
    (void)pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *cleanup_lock_(pthread_mutex_t *m)
{
    (void)pthread_mutex_lock(m);
    return m;
}

#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define AUTO_FREE CLEANUP(cleanup_free_)
#define AUTO_CLOSE CLEANUP(cleanup_close_)

#define CLEANUP_CAT2_(a, b) a##b
#define CLEANUP_CAT_(a, b) CLEANUP_CAT2_(a, b)
/* Holds the mutex from here to the end of the scope. */
#define MUTEX_GUARD(m)                                                                             \
    CLEANUP(cleanup_unlock_)                                                                       \
    pthread_mutex_t *CLEANUP_CAT_(guard_, __LINE__) __attribute__((unused)) = cleanup_lock_(m)

#define TAKE_FD(fd)                                                                                \
    ({                                                                                             \
        int take_fd_ = (fd);                                                                       \
        (fd) = -1;                                                                                 \
        take_fd_;                                                                                  \
    })
#define TAKE_PTR(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) take_ptr_ = (p);                                                             \
        (p) = NULL;                                                                                \
        take_ptr_;                                                                                 \
    })

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
