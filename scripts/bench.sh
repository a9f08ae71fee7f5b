#!/bin/sh
# Measures a release build on this machine, together with simple baselines, and prints one
# table. Writes only to a temporary folder; needs cargo and sqlite3.
#
# Usage: sh scripts/bench.sh [throughput | rules | scale | backup_under_load]...   (all of them)
#   AEGIS_BENCH_RECEIPTS   sizes of the large databases  (10000,1000000)
#   TMPDIR                 where they are created: about 1.1 kB per receipt, three times
#
# Exit status: 0 done; 1 something failed; 2 a program is missing.
set -eu

cd "$(dirname "$0")/.."
for program in cargo sqlite3; do
    command -v "$program" >/dev/null 2>&1 || {
        printf 'bench.sh: %s is needed; install it first\n' "$program" >&2
        exit 2
    }
done
[ "$#" -gt 0 ] || set -- throughput rules scale backup_under_load

cargo test --release --locked --test it --no-run
printf '\n%s processors, %s\n\n' "$(nproc)" "$(uname -sr)"
printf '| %-58s | %-58s |\n' 'what' 'measured'
printf '|%s|%s|\n' '------------------------------------------------------------' \
    '------------------------------------------------------------'
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for name in "$@"; do
    if ! cargo test --release --locked --quiet --test it -- \
        --ignored --nocapture --exact "bench::$name" >"$out" 2>&1; then
        cat "$out" >&2
        exit 1
    fi
    # The test runner may write before the first line of a table on the same line.
    sed -n 's/^[^|]*\(|.*|\)$/\1/p' "$out"
done
