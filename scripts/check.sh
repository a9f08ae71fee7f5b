#!/bin/sh
# Runs everything that must pass before a change is merged: format, lints, tests, scripts.
# Run it by hand or in CI, from anywhere. Exit status: 0, or that of the first failure.
set -eu

cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

say 'cargo fmt'
cargo fmt --check

say 'cargo clippy'
cargo clippy --all-targets --locked -- -D warnings

say 'cargo doc'
RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked --quiet

say 'cargo test'
cargo test --locked

if command -v shellcheck >/dev/null 2>&1; then
    say 'shellcheck'
    shellcheck scripts/*.sh .ci/run
else
    say 'shellcheck is not installed; skipped'
fi
