#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the tests of a build folder and counts them one by one.
#
# usage: tools/run-tests.sh <build folder> [SUITE...]      default: unit fuzz conformance net vm
#                                                          e2e lab, in this order
#
# Meson runs the registered executables, with their timeouts: those of `unit` and `fuzz` side by side, those of
# the other suites one after the other, because they share the machine's network and its VMs. Here
# the single tests inside them are counted, from the TAP lines that cmocka (CMOCKA_MESSAGE_OUTPUT)
# and our shell tests print. What prints none counts as one test. An executable that crashes, hangs,
# leaks or prints fewer results than it announced counts as one failure more.
#
# A test that cannot run here prints a line "skip: <why>" (or "skipped: <why>") and then skips itself (an executable
# without TAP: exit status 77). The reasons are shown. The last line is always
# "N passed, N failed, N skipped"; the exit status is 0 only when nothing failed and something ran.
set -euo pipefail
build=${1:?usage: run-tests.sh <build folder> [SUITE...]}
shift
[ $# -gt 0 ] || set -- unit fuzz conformance net vm e2e lab

passed=0 failed=0 skipped=0

export CMOCKA_MESSAGE_OUTPUT=tap
# The sanitizers end a test at the first finding; without this, undefined behaviour is only printed.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}

# Reads meson's testlog.json (one object a line) and prints one JSON object an executable: name,
# result, counts, and lines worth showing. Shell and C are spared the parsing of JSON.
read -r -d '' summarize <<'EOF' || true
# How many tests the executable announced ("1..N", one line for each group).
def announced: [.[] | capture("^1\\.\\.(?<n>[0-9]+)") | .n | tonumber] | add;
def count(re): [.[] | select(test(re))] | length;

(((.stdout // "") + "\n" + (.stderr // "")) | split("\n")) as $all
| ((.stdout // "") | split("\n")) as $lines
| ($lines | announced) as $plan
| ($lines | count("^(not )?ok [0-9]+.*# SKIP")) as $skipped
| ($lines | count("^ok [0-9]+(?!.*# SKIP)")) as $passed
| ($lines | count("^not ok [0-9]+(?!.*# SKIP)")) as $failed
| (.result == "OK" or .result == "SKIP" or .result == "EXPECTEDFAIL") as $fine
| if $plan == null then
    {passed: (if .result == "OK" then 1 else 0 end),
     skipped: (if .result == "SKIP" then 1 else 0 end),
     failed: (if $fine then 0 else 1 end)}
  else
    # Broken in a way that no single test has told of.
    (($passed + $failed + $skipped != $plan) or (($fine | not) and $failed == 0)) as $broken
    | {passed: $passed, skipped: $skipped, failed: ($failed + (if $broken then 1 else 0 end))}
  end
| .name = $name
| .result = $result
| .why = [$all[] | select(test("^(# ?)?skip(ped)?: ")) | sub("^(# ?)?skip(ped)?: "; "")]
| .output = (if .failed > 0 then $all[-200:] else [] end)
EOF

# show RESULT: what a person wants to see of one executable; adds to the counts.
show() {
    local name result p f s
    IFS=$'\t' read -r name result p f s < <(jq -r '[.name, .result, .passed, .failed, .skipped] | @tsv' <<<"$1")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$f" -gt 0 ]; then
        echo "FAILED: $name ($result): $p passed, $f failed, $s skipped"
        jq -r '.output[] | "    " + .' <<<"$1"
    elif [ "$s" -gt 0 ]; then
        echo "skipped: $name: $s of $((p + s)): $(jq -r '.why | if . == [] then "no reason given" else unique | join("; ") end' <<<"$1")"
    fi
}

# run_suite SUITE: meson's progress lines as they come, then what failed or was skipped.
run_suite() {
    local suite=$1 jobs=1 log line listed
    log=$build/meson-logs/testlog-$suite.json
    listed=$(meson introspect --tests "$build" |
        jq --arg suite ":$suite" '[.[] | select(any(.suite[]; endswith($suite)))] | length')
    if [ "$listed" = 0 ]; then
        echo "== $suite: no tests"
        return
    fi
    case $suite in unit | fuzz) jobs=$(nproc) ;; esac
    echo "== $suite"
    rm -f "$log"
    meson test -C "$build" --no-rebuild --suite "$suite" --num-processes "$jobs" \
        --logbase "testlog-$suite" 2>&1 | tee "$build/meson-logs/output-$suite.txt" |
        grep --line-buffered -E '^ *[0-9]+/[0-9]+ ' || true
    if [ ! -s "$log" ]; then
        echo "FAILED: meson could not run the suite $suite"
        sed 's/^/    /' "$build/meson-logs/output-$suite.txt"
        failed=$((failed + 1))
        return
    fi
    while IFS= read -r line; do
        show "$line"
    done < <(jq -c ". as \$t | .name as \$name | .result as \$result | $summarize" "$log")
}

for suite in "$@"; do
    run_suite "$suite"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
