/* SPDX-License-Identifier: Apache-2.0 */
/* openapi.yaml lists exactly the routes of the route table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/slice.h"
#include "control/api/api.h"

extern const unsigned char openapi_yaml[];

enum { ROUTES_MAX = 64, LINE_MAX_BYTES = 512 };

struct listed {
    char method[16];
    char path[128];
};

/* A path is a line "  /...:", a method a line "    <verb>:" below it. */
static size_t scan(struct listed *list)
{
    static const char *const verbs[] = {"get", "post", "put", "patch", "delete"};
    static const char *const names[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    const char *p = (const char *)openapi_yaml;
    char path[128] = "";
    size_t n = 0;
    while (*p) {
        size_t len = strcspn(p, "\n");
        char line[LINE_MAX_BYTES];
        (void)snprintf(line, sizeof line, "%.*s", (int)len, p);
        if (strncmp(line, "components:", 11) == 0)
            break;
        if (strncmp(line, "  /", 3) == 0)
            (void)snprintf(path, sizeof path, "%.*s", (int)strlen(line) - 3, line + 2);
        for (size_t i = 0; i < 5; i++) {
            char want[32];
            (void)snprintf(want, sizeof want, "    %s:", verbs[i]);
            if (strcmp(line, want) == 0) {
                assert_true(n < ROUTES_MAX);
                (void)snprintf(list[n].method, sizeof list[n].method, "%s", names[i]);
                (void)snprintf(list[n++].path, sizeof list[0].path, "%s", path);
            }
        }
        p += len + (p[len] == '\n');
    }
    return n;
}

static void the_document_and_the_table_agree(void **state)
{
    struct listed list[ROUTES_MAX];
    size_t n = scan(list);
    assert_int_equal(n, n_api_routes);
    for (size_t i = 0; i < n_api_routes; i++) {
        size_t found = 0;
        for (size_t j = 0; j < n; j++)
            found += strcmp(list[j].method, api_routes[i].method) == 0 &&
                     strcmp(list[j].path, api_routes[i].path) == 0;
        if (found != 1)
            fail_msg("%s %s is %zu times in openapi.yaml", api_routes[i].method, api_routes[i].path,
                found);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_document_and_the_table_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
