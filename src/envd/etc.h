/* SPDX-License-Identifier: Apache-2.0 */
/* The files by which the guest knows its name and identity: hostname, hosts, machine-id. */
#ifndef TORPOR_ENVD_ETC_H
#define TORPOR_ENVD_ETC_H

#include "base/err.h"

/* Writes `etc_dir`/hostname, and makes `etc_dir`/hosts name `hostname` 127.0.1.1; its other lines
 * stay. A file that already says so is not written. `hostname` is valid. */
int etc_set_hostname(const char *etc_dir, const char *hostname, struct err *e);
/* Writes `etc_dir`/machine-id; `machine_id` is 32 hex digits. */
int etc_set_machine_id(const char *etc_dir, const char *machine_id, struct err *e);

#endif
