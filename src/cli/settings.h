/* SPDX-License-Identifier: Apache-2.0 */
/* Where the server is and with which key, from the environment or an installation's env file. */
#ifndef TORPOR_CLI_SETTINGS_H
#define TORPOR_CLI_SETTINGS_H

#include <limits.h>
#include <stdint.h>

#include "base/err.h"

enum { SETTINGS_HOST_MAX = 255, SETTINGS_KEY_MAX = 255 };

struct settings {
    char host[SETTINGS_HOST_MAX + 1]; /* a name or an IPv4 address */
    uint16_t port;
    char key[SETTINGS_KEY_MAX + 1];
};

/* TORPOR_URL and TORPOR_API_KEY, what is missing from <folder>/env, where the folder is TORPOR_DIR,
 * else ./var, else /var/lib/torpor. A key from a file never goes to a server that the environment
 * named. The error says what was looked for. */
int settings_find(struct settings *ret, struct err *e);

/* http://HOST[:PORT][/] only. */
int settings_parse_url(const char *url, struct settings *ret, struct err *e);

/* The folder of the installation, absolute: TORPOR_DIR, else ./var when it is one, else
 * /var/lib/torpor. It need not exist. */
int settings_home(char ret[PATH_MAX], struct err *e);

#endif
