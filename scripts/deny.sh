#!/usr/bin/env bash
# Licences, banned crates, sources, and advisories when they can be had.
#
# With cargo-deny installed (cargo install cargo-deny --locked): deny.toml. Its advisory database comes from a git host;
# where that is out of reach the advisories are skipped, aloud. Without cargo-deny: the licence, ban and source rules of
# tests/tidy.rs, which read `cargo metadata` and need nothing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/env.sh
. scripts/env.sh

say() { printf 'deny: %s\n' "$*"; }

if ! command -v cargo-deny >/dev/null 2>&1; then
    say "cargo-deny is not installed: licences, bans and sources are checked by tests/tidy.rs; advisories are NOT checked"
    exec cargo test -q -p wukong-tests --no-default-features --test tidy -- third_party
fi

cargo deny --all-features check licenses bans sources
if log=$(cargo deny fetch db 2>&1); then
    cargo deny --all-features check advisories
else
    say "advisories are NOT checked: their database could not be fetched"
    printf '%s\n' "$log" | tail -n 3
fi
