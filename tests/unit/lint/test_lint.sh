#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Plants one violation of each rule of tools/lint.sh into a small tree and expects exactly that rule
# to name exactly that place. Also plants what looks like a violation and is none.
#
# usage: test_lint.sh <tools folder>        Prints TAP.
set -euo pipefail
tools=${1:?usage: test_lint.sh <tools folder>}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tests=0
failures=0

# tap OK NAME
tap() {
    tests=$((tests + 1))
    if [ "$1" = ok ]; then
        echo "ok $tests - $2"
    else
        failures=$((failures + 1))
        echo "not ok $tests - $2"
        sed 's/^/# /' "$work/output"
    fi
}

# plant FILE: a fresh tree with this file, whose body comes in; the SPDX line is line 1.
plant() {
    rm -rf "$work/tree"
    mkdir -p "$work/tree/$(dirname "$1")"
    cp "$tools/../.clang-format" "$work/tree/"
    {
        case $1 in
        *.c | *.h) echo '/* SPDX-License-Identifier: Apache-2.0 */' ;;
        *) printf '#!/bin/bash\n# SPDX-License-Identifier: Apache-2.0\n' ;;
        esac
        cat
    } >"$work/tree/$1"
}

lint() {
    "$tools/lint.sh" "$work/tree" >"$work/output" 2>&1
}

# expect_violation NAME RULE PLACE: lint fails, and its only complaint is this.
expect_violation() {
    local result=bad
    if ! lint && grep -qF "$3: [$2] " "$work/output" &&
        ! grep -qvF "$3: [$2] " < <(grep -v '^lint: ' "$work/output"); then
        result=ok
    fi
    tap "$result" "$1"
}

expect_clean() {
    if lint; then tap ok "$1"; else tap bad "$1"; fi
}

# includes FILE HEADER: plants a file that includes it.
includes() {
    plant "$1" <<<"#include \"$2\""
}

includes src/base/x.c proto/sandbox.h
expect_violation "base includes nothing of ours" layers src/base/x.c:2
includes src/json/x.c http/parse.h
expect_violation "json is below http" layers src/json/x.c:2
includes src/http/x.h rpc/message.h
expect_violation "http is below rpc, headers too" layers src/http/x.h:2
includes src/envd/x.c agent/net/net.h
expect_violation "envd does not know the agent" layers src/envd/x.c:2
includes src/agent/net/x.c agent/vmm/vmm.h
expect_violation "net does not know vmm" layers src/agent/net/x.c:2
includes src/agent/disk/x.c agent/guest/guest.h
expect_violation "disk does not know guest" layers src/agent/disk/x.c:2
includes src/agent/vmm/x.c agent/life/life.h
expect_violation "vmm does not know life" layers src/agent/vmm/x.c:2
includes src/control/store/x.c control/service/service.h
expect_violation "store does not know service" layers src/control/store/x.c:2
includes src/control/api/x.c agent/life/life.h
expect_violation "control does not know the agent" layers src/control/api/x.c:2
includes src/unheard/x.c base/err.h
expect_violation "a folder without a place in the layers" layers src/unheard/x.c:2

plant src/agent/life/x.c <<'EOF'
#include <stdio.h>

#include "agent/life/life_int.h"
#include "agent/net/net.h"
#include "agent/vmm/vmm.h"
#include "base/err.h"
#include "rpc/agent_v1.h"
/* #include "control/api/api.h" */
EOF
expect_clean "life joins the mechanisms; comments do not count"

plant src/control/service/x.c <<<'#include <sqlite3.h>'
expect_violation "SQL outside the store" sql src/control/service/x.c:2
plant src/control/store/x.c <<<'#include <sqlite3.h>'
expect_clean "SQL in the store"

plant src/control/api/x.c <<'EOF'
void f(struct reply *r)
{
    r->status = 404;
}
EOF
expect_violation "a status number is assigned" http-status src/control/api/x.c:4
plant src/control/api/x.c <<'EOF'
void f(struct reply *r)
{
    reply_head(r, 503, 0);
}
EOF
expect_violation "a status number is passed" http-status src/control/api/x.c:4
plant src/http/x.c <<'EOF'
int f(int status)
{
    return status == 404;
}
EOF
expect_clean "a status number in http"

plant src/agent/life/x.c <<'EOF'
void f(void)
{
    exit(1);
}
EOF
expect_violation "exit outside main.c" exit src/agent/life/x.c:4
plant src/agent/life/x.c <<'EOF'
void f(struct process *p)
{
    p->exit(1); /* exit(2) */
    log_info("exit(3)");
    process_exit(4);
    _exit(5);
}
EOF
expect_clean "other things called exit"

plant src/agent/life/x.c <<'EOF'
void f(const char *command)
{
    system(command);
}
EOF
expect_violation "a shell" shell src/agent/life/x.c:4

plant src/agent/life/x.c <<'EOF'
void f(void)
{
    usleep(100);
}
EOF
expect_violation "a sleep" sleep src/agent/life/x.c:4

plant src/base/x.c <<'EOF'
int f(const char *path)
{
    return open(path, O_RDONLY);
}
EOF
expect_violation "open without CLOEXEC" cloexec src/base/x.c:4
plant src/base/x.c <<'EOF'
int f(void)
{
    return socket(AF_UNIX, SOCK_STREAM, /* SOCK_CLOEXEC */ 0);
}
EOF
expect_violation "socket without CLOEXEC" cloexec src/base/x.c:4
plant src/base/x.c <<'EOF'
int f(int fd)
{
    return accept(fd, NULL, NULL);
}
EOF
expect_violation "accept" cloexec src/base/x.c:4
plant src/base/x.c <<'EOF'
FILE *f(const char *path)
{
    return fopen(path, "r");
}
EOF
expect_violation "fopen without e" cloexec src/base/x.c:4
plant src/base/x.c <<'EOF'
int f(struct thing *t, const char *path)
{
    FILE *stream = fopen(path, "re");
    thing_open(t, path);
    t->open(path);
    return openat(t->folder_with_a_name_that_is_long, path,
        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC);
}
EOF
expect_clean "descriptors with CLOEXEC, also on the next line"

seq -f 'int v%.0f;' 99 | plant src/envd/main.c
expect_violation "a main.c of 100 lines" main src/envd/main.c
seq -f 'int v%.0f;' 800 | plant src/envd/x.c
expect_violation "a file of 801 lines" length src/envd/x.c

plant src/envd/x.c <<<'int x;'
sed -i 1d "$work/tree/src/envd/x.c"
expect_violation "no SPDX line" spdx src/envd/x.c
plant src/envd/x.c <<<'int  x;'
expect_violation "not formatted" format src/envd/x.c:2
plant tools/x.sh <<<'echo a |'' grep -q a'
expect_violation "a pipe into grep -q" early-reader tools/x.sh:3
# The script that is planted reads its variable from its own environment.
# shellcheck disable=SC2016
plant tools/x.sh <<<'cat $1'
expect_violation "shellcheck complains" shellcheck tools/x.sh:3

echo "1..$tests"
[ "$failures" -eq 0 ]
