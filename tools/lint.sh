#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks the rules of the source tree that no compiler checks. Prints file, line and rule for every
# violation and fails when there is one.
#
# usage: tools/lint.sh [ROOT]      ROOT: the tree to check, by default the one this script is in
#
# Rules that look at code look at it without comments and, where they are about calls, without
# strings (strip_c). Each rule is one function; tests/unit/lint plants a violation of each.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "${1:-$here/..}" && pwd)
cd "$root"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/violations"

# violation RULE PLACE TEXT
violation() {
    printf '%s: [%s] %s\n' "$2" "$1" "$3" | tee -a "$work/violations"
}

# violations RULE TEXT: one for each "file:line" that comes in.
violations() {
    local place
    while IFS= read -r place; do
        violation "$1" "$place" "$2"
    done
}

mapfile -d '' -t files_all < <("$here/source-files.sh" "$root" all)
mapfile -d '' -t files_c < <("$here/source-files.sh" "$root" c)
mapfile -d '' -t files_sh < <("$here/source-files.sh" "$root" sh)
files_src=()
for file in ${files_c[@]+"${files_c[@]}"}; do
    [[ $file != src/* ]] || files_src+=("$file")
done

# --- Code without comments ------------------------------------------------------------------------

# strip_c: reads C files, prints "file:line:code" with comments blanked. Contents of strings and
# characters are blanked too unless keep=1; quotes stay.
strip_c() {
    awk -v keep="${keep:-0}" '
        FNR == 1 { in_comment = 0 }
        {
            out = ""; quote = ""; n = length($0)
            for (i = 1; i <= n; i++) {
                c = substr($0, i, 1); two = substr($0, i, 2)
                if (in_comment) {
                    if (two == "*/") { in_comment = 0; i++ }
                } else if (quote != "") {
                    if (c == "\\") { out = out (keep ? two : ""); i++ }
                    else if (c == quote) { quote = ""; out = out c }
                    else if (keep) out = out c
                } else if (two == "/*") { in_comment = 1; out = out " "; i++ }
                else if (two == "//") break
                else { if (c == "\"" || c == "\047") quote = c; out = out c }
            }
            print FILENAME ":" FNR ":" out
        }' "$@"
}

# All of src/, once: without and with the contents of strings.
if [ ${#files_src[@]} -gt 0 ]; then
    strip_c "${files_src[@]}" >"$work/code"
    keep=1 strip_c "${files_src[@]}" >"$work/code_strings"
else
    : >"$work/code"
    : >"$work/code_strings"
fi

# places PATTERN [FILE]: "file:line" of the code that matches; the pattern sees only the code.
places() {
    sed -nE "s/^([^:]+:[0-9]+):.*($1).*/\1/p" "${2:-$work/code}"
}

# --- Rules about includes -------------------------------------------------------------------------

# folder_of FILE: the part of the source tree a file or an include belongs to: "agent/net", "http".
folder_of() {
    case $1 in
    agent/*/* | control/*/*) cut -d/ -f1,2 <<<"$1" ;;
    */*) cut -d/ -f1 <<<"$1" ;;
    *) echo . ;;
    esac
}

# may_include FOLDER OTHER: the layers. A folder may use itself and what is listed for it.
may_include() {
    local shared="base proto json http rpc" allowed
    [ "$1" != "$2" ] || return 0
    case $1 in
    base) allowed="" ;;
    proto) allowed="base" ;;
    json) allowed="base proto" ;;
    http) allowed="base proto json" ;;
    rpc) allowed="base proto json http" ;;
    guestinit) allowed="base" ;;
    snap | preload) allowed="base proto" ;;
    envd | cli) allowed=$shared ;;
    shim) allowed="$shared snap" ;;
    agent/net | agent/vmm | agent/disk | agent/guest) allowed=$shared ;;
    agent/snap) allowed="$shared snap" ;;
    agent/life) allowed="$shared snap agent/net agent/vmm agent/disk agent/snap agent/guest" ;;
    agent) allowed="$shared snap agent/life agent/net agent/vmm agent/disk agent/snap agent/guest" ;;
    control/store) allowed=$shared ;;
    control/service) allowed="$shared control/store" ;;
    control/agent_client) allowed="$shared control/service" ;;
    control/reconcile) allowed="$shared control/store control/service" ;;
    control/api) allowed="$shared control/store control/service" ;;
    control) allowed="$shared control/store control/service control/agent_client control/reconcile control/api" ;;
    *) allowed=unknown ;;
    esac
    [[ " $allowed " == *" $2 "* ]]
}

rule_layers() {
    local file line path from to
    while IFS=: read -r file line path; do
        from=$(folder_of "${file#src/}")
        to=$(folder_of "$path")
        [ "$to" != . ] || continue # a generated header, or one of the same folder
        may_include "$from" "$to" ||
            violation layers "$file:$line" "$from may not include $to ($path)"
    done < <(sed -nE 's/^([^:]+:[0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*"([^"]+)".*/\1:\2/p' \
        "$work/code_strings")
}

rule_sql() {
    places '#[[:space:]]*include[[:space:]]*<(sqlite3|libpq-fe|postgresql\/libpq-fe)\.h>' |
        grep -v '^src/control/store/' |
        violations sql "only src/control/store speaks SQL" || true
}

# --- Rules about calls ----------------------------------------------------------------------------

# Numbers of statuses are known to http/ and its one table of kinds.
rule_status() {
    local number='[1-5][0-9][0-9]'
    places "[sS]tatus[A-Za-z_]*[[:space:]]*(=|==|!=|<|>|<=|>=)[[:space:]]*$number([^0-9A-Za-z]|\$)" \
        >"$work/status"
    places "(respond|reply|status|head_new|fail)[a-z_]*\(([^()]*,)?[[:space:]]*${number}[,)]" \
        >>"$work/status"
    grep -v '^src/http/' "$work/status" | sort -u |
        violations http-status "a status number; use an error kind or a name of http/status.h" || true
}

rule_exit() {
    places '(^|[^_A-Za-z0-9.>])(exit|quick_exit)[[:space:]]*\(' | grep -v '/main\.c:' |
        violations exit "exit is called in main.c only; return an error" || true
}

rule_shell() {
    places '(^|[^_A-Za-z0-9.>])(system|popen)[[:space:]]*\(' |
        violations shell "no shell: use a system call, or spawn a program with its arguments" || true
}

rule_sleep() {
    places '(^|[^_A-Za-z0-9.>])(sleep|usleep|nanosleep|clock_nanosleep)[[:space:]]*\(' |
        violations sleep "no sleeps: wait for an event, with a deadline" || true
}

# statements NAMES: each call of one of these functions as "file:line:call up to the semicolon".
statements() {
    awk -v names="$1" '
        function flush() { if (text != "") print place ":" text; text = "" }
        {
            split($0, part, ":"); here = part[1] ":" part[2]
            code = substr($0, length(here) + 2)
            if (text != "") text = text " " code
            else if (match(code, "(^|[^_A-Za-z0-9.>])(" names ")[ ]*\\(")) {
                place = here; text = substr(code, RSTART)
            }
            if (text ~ /;/ || code ~ /^}/) flush()
        }
        END { flush() }' "$work/code_strings"
}

rule_cloexec() {
    local why="a descriptor without CLOEXEC leaks into every program we start"
    statements 'open|openat|socket|socketpair|accept4|pipe2|epoll_create1|eventfd|timerfd_create|signalfd|inotify_init1|memfd_create|userfaultfd|open_by_handle_at' |
        grep -v CLOEXEC | cut -d: -f1,2 | violations cloexec "$why" || true
    # fopen says it in its mode.
    statements 'fopen|fdopen|freopen' | grep -E '(fopen|freopen)' | grep -vE '"[rwa+b]*e[^"]*"' |
        cut -d: -f1,2 | violations cloexec "$why (mode \"...e\")" || true
    # These cannot say it.
    places '(^|[^_A-Za-z0-9.>])(accept|pipe|dup|creat|epoll_create|inotify_init|tmpfile|mkstemp)[[:space:]]*\(|F_DUPFD([^_]|$)' |
        violations cloexec "$why: accept4, pipe2, F_DUPFD_CLOEXEC, O_TMPFILE" || true
}

# --- Rules about files ----------------------------------------------------------------------------

rule_main() {
    local file lines
    for file in ${files_src[@]+"${files_src[@]}"}; do
        [[ $file == */main.c ]] || continue
        lines=$(wc -l <"$file")
        [ "$lines" -lt 100 ] || violation main "$file" "$lines lines; a main.c has less than 100"
    done
}

rule_length() {
    local file lines
    for file in ${files_c[@]+"${files_c[@]}"}; do
        lines=$(wc -l <"$file")
        [ "$lines" -le 800 ] || violation length "$file" "$lines lines; a file has at most 800"
    done
}

rule_spdx() {
    local file
    for file in ${files_all[@]+"${files_all[@]}"}; do
        grep -q 'SPDX-License-Identifier: Apache-2.0' < <(head -n 3 "$file") ||
            violation spdx "$file" "no SPDX-License-Identifier in the first three lines"
    done
}

rule_format() {
    [ ${#files_c[@]} -gt 0 ] || return 0
    clang-format --dry-run -Werror "${files_c[@]}" >"$work/format" 2>&1 ||
        sed -nE 's/^([^:]+:[0-9]+):[0-9]+: error: .*/\1/p' "$work/format" | sort -u -t: -k1,1 |
        violations format "not formatted from here; run make fmt"
}

# With pipefail, what writes to a reader that has seen enough fails the pipeline now and then.
rule_early_reader() {
    local pattern='[|] *(grep -[A-Za-z]*q|head)( |$)'
    [ ${#files_sh[@]} -gt 0 ] || return 0
    grep -nEH -- "$pattern" "${files_sh[@]}" | cut -d: -f1,2 |
        violations early-reader "a pipe into grep -q or head; read from < <(command)" || true
}

rule_shellcheck() {
    [ ${#files_sh[@]} -gt 0 ] || return 0
    shellcheck -x -f gcc "${files_sh[@]}" >"$work/shellcheck" 2>&1 ||
        while IFS= read -r line; do
            violation shellcheck "$(cut -d: -f1,2 <<<"$line")" "$(cut -d: -f4- <<<"$line")"
        done <"$work/shellcheck"
}

for rule in layers sql status exit shell sleep cloexec main length spdx format early_reader shellcheck; do
    "rule_$rule"
done

count=$(wc -l <"$work/violations")
if [ "$count" -gt 0 ]; then
    echo "lint: $count violations"
    exit 1
fi
echo "lint: ${#files_all[@]} files, no violations"
