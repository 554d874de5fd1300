#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Gives tools/run-tests.sh executables that behave in every way an executable can, and expects the
# right counts.
#
# usage: test_runner.sh <tools folder>        Prints TAP.
set -euo pipefail
tools=${1:?usage: test_runner.sh <tools folder>}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tests=0
failures=0
# The outer meson's settings are not for the inner one.
unset MESON_TEST_ITERATION MALLOC_PERTURB_

# A project with one executable, script.sh; each test gives it another body.
mkdir "$work/project"
echo '#!/bin/sh' >"$work/project/script.sh"
chmod +x "$work/project/script.sh"
cat >"$work/project/meson.build" <<'EOF'
project('runner')
test('one', find_program('script.sh'), suite: 'unit', protocol: 'exitcode', timeout: 1)
EOF
meson setup "$work/project/build" "$work/project" >/dev/null

# expect NAME LAST_LINE STATUS [TEXT]: runs the script that comes in, and expects the runner's last
# line, its exit status, and TEXT somewhere in its output.
expect() {
    local name=$1 last=$2 want=$3 text=${4:-} status=0 result=bad
    {
        echo '#!/bin/sh'
        cat
    } >"$work/project/script.sh"
    "$tools/run-tests.sh" "$work/project/build" >"$work/output" 2>&1 || status=$?
    if [ "$(tail -n 1 "$work/output")" = "$last" ] && [ "$status" -eq "$want" ] &&
        grep -qF -- "$text" "$work/output"; then
        result=ok
    fi
    tests=$((tests + 1))
    if [ "$result" = ok ]; then
        echo "ok $tests - $name"
    else
        failures=$((failures + 1))
        echo "not ok $tests - $name"
        sed 's/^/# /' "$work/output"
    fi
}

expect "all pass" "2 passed, 0 failed, 0 skipped" 0 <<'EOF'
printf '1..2\nok 1 - a\nok 2 - b\n'
EOF
expect "a failure and a skip, as cmocka prints them" "1 passed, 1 failed, 1 skipped" 1 "0x1 != 0x2" <<'EOF'
printf '1..3\nok 1 - a\nnot ok 2 # SKIP b\nnot ok 3 - c\n# 0x1 != 0x2\n'
exit 1
EOF
expect "a reason for skipping" "0 passed, 0 failed, 1 skipped" 1 "no tun here" <<'EOF'
printf '1..1\nskip: no tun here\nnot ok 1 # SKIP a\n'
EOF
expect "two groups in one executable" "3 passed, 0 failed, 0 skipped" 0 <<'EOF'
printf '1..1\nok 1 - a\n1..2\nok 1 - b\nok 2 - c\n'
EOF
expect "a crash in the middle" "1 passed, 1 failed, 0 skipped" 1 <<'EOF'
printf '1..3\nok 1 - a\n'
kill -SEGV $$
EOF
expect "an early end that looks like success" "1 passed, 1 failed, 0 skipped" 1 <<'EOF'
printf '1..3\nok 1 - a\n'
EOF
expect "a failure after all tests, such as a leak" "1 passed, 1 failed, 0 skipped" 1 "leaked" <<'EOF'
printf '1..1\nok 1 - a\n'
echo leaked >&2
exit 23
EOF
expect "so many failures that they look like a skip" "0 passed, 77 failed, 0 skipped" 1 <<'EOF'
echo 1..77
for i in $(seq 77); do echo "not ok $i - t"; done
exit 77
EOF
expect "a test that hangs" "0 passed, 1 failed, 0 skipped" 1 "TIMEOUT" <<'EOF'
exec tail -f /dev/null
EOF
expect "no TAP, success" "1 passed, 0 failed, 0 skipped" 0 <<'EOF'
exit 0
EOF
expect "no TAP, skipped" "0 passed, 0 failed, 1 skipped" 1 "needs root" <<'EOF'
echo "skip: needs root"
exit 77
EOF
expect "no TAP, failure" "0 passed, 1 failed, 0 skipped" 1 <<'EOF'
exit 1
EOF

echo "1..$tests"
[ "$failures" -eq 0 ]
