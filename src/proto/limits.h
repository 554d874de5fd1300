/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every bound that more than one part must agree on, each with its reason. A bound that only one
 * file knows stays in that file.
 */
#ifndef TORPOR_PROTO_LIMITS_H
#define TORPOR_PROTO_LIMITS_H

/* Sandboxes: what a create may ask for. */
#define LIMIT_VCPUS_MIN 1
#define LIMIT_VCPUS_MAX 32 /* four times the cores of a small host, the KVM limit is far off */
#define LIMIT_MEMORY_MB_MIN                                                                        \
    128 /* Debian's kernel boots in 96 MiB; below that nothing useful runs */
#define LIMIT_MEMORY_MB_MAX 65536
#define LIMIT_TIMEOUT_SEC_MAX 2592000 /* 30 days */
#define LIMIT_NAME_MAX 64             /* template and snapshot names, requirements A10 */
#define LIMIT_ENV_MAX 128             /* variables of one sandbox or one command */
#define LIMIT_ENV_KEY_MAX 255
#define LIMIT_ENV_VALUE_MAX 32768 /* a quarter of Linux' MAX_ARG_STRLEN */
#define LIMIT_METADATA_MAX 64     /* keys of one sandbox */
#define LIMIT_METADATA_KEY_MAX 63
#define LIMIT_METADATA_VALUE_MAX 1024

/* Exec. */
#define LIMIT_EXEC_TIMEOUT_SEC_DEFAULT 30
#define LIMIT_EXEC_TIMEOUT_SEC_MAX 3600
#define LIMIT_EXEC_OUTPUT_BYTES (16u << 20) /* stdout and stderr together; beyond: truncated */
#define LIMIT_EXEC_ARGS_MAX 1024
#define LIMIT_PATH_MAX 4095 /* PATH_MAX without the NUL */

/* Requests. */
#define LIMIT_BODY_JSON_BYTES (1u << 20)     /* any JSON body of the public API */
#define LIMIT_FILE_UNARY_BYTES (100u << 20)  /* files/write, files/read; larger ones stream */
#define LIMIT_RPC_MESSAGE_BYTES (144u << 20) /* a unary file in base64 with room for the rest */
#define LIMIT_LIST_DEFAULT 100
#define LIMIT_LIST_MAX 1000
#define LIMIT_REQUEST_ID_MAX 64

/* Waiting, milliseconds. */
#define LIMIT_BOOT_MS 60000            /* a cold boot under TCG on a busy host takes 11 s */
#define LIMIT_BOOT_QUEUE_MS 60000      /* waiting for a boot slot, then 503 */
#define LIMIT_TRANSITION_WAIT_MS 30000 /* a request waits this long for another transition */

/* Guest ABI 1: frozen into every snapshot. */
#define GUEST_ADDRESS "169.254.0.21"
#define GUEST_GATEWAY "169.254.0.22" /* the host's side of the TAP; also the DNS server */
#define GUEST_PREFIX_LEN 30
#define GUEST_TAP "tap0"
#define GUEST_MAC "52:54:00:00:00:15"      /* the guest's end */
#define GUEST_HOST_MAC "52:54:00:00:00:16" /* the TAP, the same in every slot */
#define GUEST_ENVD_PORT 49983              /* E2B's envd listens there */

#define CONSOLE_BYTES_MAX (1u << 20) /* per sandbox; the newest output wins */

#endif
