/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What torpor-agent and torpor-shim say to each other. Both run on one machine, so numbers are in
 * its byte order; every struct has a fixed size and no hidden padding.
 *
 * Launch: the agent starts the shim with descriptor 3, one end of a socket pair, and sends one
 * plan: head, then `body_bytes` of NUL-terminated strings: `n_args` arguments of the VMM (the first
 * is its absolute path, also inside the jail), then for each of `n_files` three strings:
 * SHIM_FILE_EXEC or SHIM_FILE_READ, the absolute path on the host, the absolute path in the jail.
 * The descriptors come with the head's first byte (SCM_RIGHTS): those of enum shim_fd, then
 * `n_layers` frozen disk layers (bottom first, read-only), then with SHIM_PLAN_RESTORE the memory
 * map and the `n_blobs` blobs of its table, in that order, then with SHIM_PLAN_HINTS the working
 * set. The answer is SHIM_MSG_STARTED once the VMM's exec has succeeded, or SHIM_MSG_FAILED and the
 * shim is gone. The pair then stays a control connection.
 *
 * Memory: unless SHIM_MEMORY_STOCK, the VMM's main memory is the shim's business. A preloaded
 * library (one of the plan's files, at SHIM_LIBRARY in the jail) maps it as the shim says and tells
 * where (the page-fault handshake of Firecracker, over an inherited socket); the shim serves its
 * page faults (SHIM_MEMORY_UFFD) and, while the vCPUs stand still, writes what was written since
 * the restore (SAVE). With SHIM_MEMORY_COPIED there is no library: the shim looks for the memory
 * among the VMM's mappings, and writes the contents into it before the vCPUs run (FILL).
 *
 * Control: connections to the listening socket, root only, carry struct shim_msg in both
 * directions. Each request has one reply, SHIM_MSG_STATE or SHIM_MSG_REFUSED; SHIM_MSG_EXITED comes
 * unasked.
 *
 * One agent at a time holds a VM: the connection that controls it, at first the one that the launch
 * came over. Only it may KILL and ACK. Another gets control by a HELLO with SHIM_HELLO_CONTROL once
 * the controlling one has closed; with SHIM_HELLO_TAKEOVER also when the process at its other end
 * has ended, and only somebody else still holds its descriptor. Otherwise it is refused and told
 * who has control. Anybody else who is root may look: HELLO and STATUS.
 *
 * Versions: what never changes is the place of magic, version and type, and all of HELLO: its size,
 * version_min, version_max, flags. It is sent under SHIM_VERSION_MIN, so that every shim takes it,
 * and names what the agent can speak; the shim answers with the newest version that both know, and
 * the connection stays with that. A connection without HELLO speaks the shim's newest. A shim of
 * version 1 looks at the header only and answers with version 1; it has no notion of control. A
 * shim that shares no version answers under one of its own, of which the agent reads the header.
 */
#ifndef TORPOR_PROTO_SHIM_H
#define TORPOR_PROTO_SHIM_H

#include <assert.h>
#include <stdint.h>

enum {
    /* 2: versions are agreed on, one connection has control; 3: memory is saved and served */
    SHIM_VERSION = 3,
    SHIM_VERSION_MIN = 1, /* the oldest that agents still speak */
    SHIM_ID_BYTES = 32,
    SHIM_TAP_BYTES = 16,   /* IFNAMSIZ */
    SHIM_TEXT_BYTES = 256, /* as much as an err's message */
    SHIM_MSG_BYTES = 512,
    SHIM_ARGS_MAX = 160,      /* the driver uses about 50, and 6 a frozen layer */
    SHIM_FILES_MAX = 256,     /* Debian's QEMU needs 56 */
    SHIM_BODY_MAX = 64 << 10, /* 256 files of two paths of 100 bytes, and the arguments */
    SHIM_PLAN_FD = 3,
    SHIM_UID_MIN = 1000,  /* below are the accounts of the system */
    SHIM_LAYERS_MAX = 16, /* frozen disk layers; they are merged long before */
    SHIM_BLOBS_MAX = 64,  /* of a memory map; it is flattened beyond 8 */
};

#define SHIM_LIBRARY "/torpor-memory.so" /* in the jail */
#define SHIM_RAM_PATH "/torpor-ram"      /* what the VMM is told its memory's file is */

#define SHIM_PLAN_MAGIC 0x4e4c5054u /* "TPLN" */
#define SHIM_MSG_MAGIC 0x47534d54u  /* "TMSG" */

#define SHIM_FILE_EXEC "x" /* may be mapped executable: the program and its shared objects */
#define SHIM_FILE_READ "r"

/* Descriptors that every plan has, in this order, before the others. */
enum shim_fd {
    SHIM_FD_LISTEN,      /* listening unix stream socket for control connections */
    SHIM_FD_CONSOLE_DIR, /* folder for console.log */
    SHIM_FD_NETNS,       /* network namespace that holds the TAP */
    SHIM_FD_OVERLAY,     /* read-write */
    SHIM_FD_BASE,        /* read-only */
    SHIM_FD_MONITOR,     /* listening unix stream socket at which the VMM takes commands */
    SHIM_FD_COUNT
};
enum { SHIM_FDS_MAX = SHIM_FD_COUNT + SHIM_LAYERS_MAX + 1 + SHIM_BLOBS_MAX + 1 };

/* Where the VMM finds its descriptors; its arguments name these numbers. 0 is /dev/null, 1 and 2 go
 * to the console log. */
enum {
    SHIM_VMM_FD_OVERLAY = 3,
    SHIM_VMM_FD_BASE,
    SHIM_VMM_FD_TAP,
    SHIM_VMM_FD_SERIAL,  /* a stream socket */
    SHIM_VMM_FD_MONITOR, /* a listening socket */
    SHIM_VMM_FD_LAYERS   /* the first frozen layer, the others follow; then the library's */
};

/* `flags` of a plan. */
enum {
    SHIM_PLAN_KVM = 1,         /* the jail has /dev/kvm */
    SHIM_PLAN_RESTORE = 2,     /* memory comes from a map; without it, it is zeros */
    SHIM_PLAN_HINTS = 4,       /* a working set to copy in ahead */
    SHIM_PLAN_OLD_PAGEMAP = 8, /* do without PAGEMAP_SCAN and WP_ASYNC, as on older kernels */
};

enum shim_memory {
    SHIM_MEMORY_STOCK,   /* the VMM's own: no library, nothing can be saved */
    SHIM_MEMORY_PRIVATE, /* blobs are mapped privately */
    SHIM_MEMORY_UFFD,    /* the shim copies pages in when they are touched */
    SHIM_MEMORY_COPIED,  /* the VMM's own; the shim copies all of it in ahead. No library */
    SHIM_MEMORY_COUNT
};

struct shim_plan_head {
    uint32_t magic;
    uint16_t version;
    uint16_t n_fds; /* SHIM_FD_COUNT: the fixed ones */
    uint32_t body_bytes;
    uint16_t n_args;
    uint16_t n_files;
    uint32_t flags;
    uint32_t uid;             /* the VMM's uid and gid */
    uint64_t fsize_bytes;     /* RLIMIT_FSIZE of the VMM */
    char id[SHIM_ID_BYTES];   /* sandbox id, padded with NULs */
    char tap[SHIM_TAP_BYTES]; /* name of the TAP, padded with NULs */
    uint64_t memory_bytes;    /* of the guest; 0 with SHIM_MEMORY_STOCK */
    uint32_t memory;          /* enum shim_memory */
    uint16_t n_layers;
    uint16_t n_blobs;
};
static_assert(sizeof(struct shim_plan_head) == 96, "no padding");

/* What the shim tells the library, in one variable of the VMM's otherwise empty environment: mode
 * (SHIM_LIBRARY_), bytes of memory, descriptors of the placeholder, of the socket for the handshake
 * and of what the mode needs, how many runs; decimal, with colons between. */
#define SHIM_LIBRARY_ENV "TORPOR_MEMORY"
enum { SHIM_HANDSHAKE_BYTES = 256 };
enum {
    SHIM_LIBRARY_PRIVATE = 1, /* needs an array of struct shim_run, in a file */
    SHIM_LIBRARY_UFFD,        /* needs /dev/userfaultfd */
    SHIM_LIBRARY_UFFD_OLD,    /* the same, without asking for write tracking */
};

/* Memory at `offset` is a blob's, at `file_offset`; what no run names is zeros. */
struct shim_run {
    uint64_t offset;
    uint64_t length;
    uint64_t file_offset;
    uint32_t fd;
    uint32_t reserved;
};
static_assert(sizeof(struct shim_run) == 32, "no padding");

enum shim_msg_type {
    /* Requests. */
    SHIM_MSG_HELLO = 1,
    SHIM_MSG_STATUS = 2,
    SHIM_MSG_KILL = 3, /* SIGKILL to the VMM */
    SHIM_MSG_ACK = 4,  /* the end of the VMM is known: the shim may end. No reply but the end. */
    /* From version 3 on, for the connection in control only. */
    /* Writes memory. The vCPUs must stand still until the reply. Three descriptors come with it,
     * empty files open for reading and writing: blob, its checksums, the map. `uuid` names the
     * blob. Reply: SAVED, or SAVE_FAILED with text and errnum. Nothing is synced. */
    SHIM_MSG_SAVE = 5,
    /* What the last SAVE wrote is durable: later ones may refer to it. Reply: STATE. */
    SHIM_MSG_COMMIT = 6,
    /* Breaks off a SAVE under way, which then answers SAVE_FAILED with ECANCELED. No other reply;
     * without a SAVE nothing happens. */
    SHIM_MSG_CANCEL = 7,
    /* Writes the working set recorded so far into the one descriptor that comes with it. Reply:
     * SAVED (`pages_stored`: how many pages it names; 0 where none is recorded). */
    SHIM_MSG_HINTS = 8,
    /* SHIM_MEMORY_COPIED with a map: writes the contents into the memory of a VMM that has mapped
     * it and does not run yet. Reply: STATE, or SAVE_FAILED with text and errnum. */
    SHIM_MSG_FILL = 9,
    /* Replies and events; all carry pids, start times, id, uptime, `ended`. */
    SHIM_MSG_STARTED = 64,
    SHIM_MSG_FAILED = 65, /* text, errnum */
    SHIM_MSG_STATE = 66,
    SHIM_MSG_EXITED = 67,  /* wait_status, text */
    SHIM_MSG_REFUSED = 68, /* `refusal` says why; none in version 1 */
    SHIM_MSG_SAVED = 69,   /* the numbers of version 3 */
    SHIM_MSG_SAVE_FAILED = 70,
};

/* `flags` of HELLO. */
enum {
    SHIM_HELLO_CONTROL = 1,
    SHIM_HELLO_TAKEOVER = 2,
};

/* `flags` of messages that the shim sends. */
enum {
    SHIM_STATE_COPIED = 1, /* the VM's memory is SHIM_MEMORY_COPIED */
};

/* `flags` of SAVE. */
enum {
    SHIM_SAVE_WRITE_BACK =
        1, /* the disk may begin at once: a sync follows. Costs the copying time */
};

enum shim_refusal {
    SHIM_REFUSAL_NONE,
    SHIM_REFUSAL_VERSION,    /* none in common, or not the connection's */
    SHIM_REFUSAL_TYPE,       /* no such request */
    SHIM_REFUSAL_CONTROLLED, /* `controller_pid` has this VM */
    SHIM_REFUSAL_NO_CONTROL, /* the connection has no control */
    SHIM_REFUSAL_RUNNING,    /* there is no end to acknowledge yet */
    SHIM_REFUSAL_MEMORY,     /* this VM's memory is not the shim's, or is not mapped yet */
};

struct shim_msg {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t shim_pid;
    uint32_t vmm_pid;
    uint64_t shim_start; /* field 22 of /proc/PID/stat */
    uint64_t vmm_start;
    uint64_t uptime_ms;  /* of the VMM */
    int32_t wait_status; /* of waitpid(2), when `ended` */
    int32_t errnum;
    uint32_t ended; /* 1: the VMM has ended */
    uint32_t reserved;
    char id[SHIM_ID_BYTES];
    char text[SHIM_TEXT_BYTES]; /* printable ASCII; why a launch failed, or the VMM's last words */
    /* From version 2 on; zeros in version 1. */
    uint16_t version_min; /* what the sender can speak */
    uint16_t version_max;
    uint32_t flags;
    uint32_t refusal;        /* enum shim_refusal */
    uint32_t controller_pid; /* of the agent in control, 0 when there is none */
    /* From version 3 on. */
    uint8_t uuid[16];
    uint64_t pages_stored;   /* in the new blob */
    uint64_t pages_zero;     /* written, and zeros now */
    uint64_t pages_referred; /* written, but as an older blob has them */
    uint64_t scan_us;        /* finding them */
    uint64_t write_us;       /* reading, comparing, writing */
    uint64_t map_entries;
    uint64_t map_blobs;
    uint64_t faults;      /* page faults served since the start */
    uint64_t pages_ahead; /* copied in ahead of them */
    uint8_t pad[SHIM_MSG_BYTES - 448];
};
static_assert(sizeof(struct shim_msg) == SHIM_MSG_BYTES, "no padding");

/* What all versions have in common. */
struct shim_msg_head {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
};

/* The size of the messages of a version, head included; 0 for versions that are not known. */
static inline uint32_t shim_msg_bytes(unsigned version)
{
    static const uint16_t bytes[SHIM_VERSION + 1] = {
        [1] = SHIM_MSG_BYTES, [2] = SHIM_MSG_BYTES, [3] = SHIM_MSG_BYTES};
    return version <= SHIM_VERSION ? bytes[version] : 0;
}

#endif
