#!/usr/bin/env bash
# The purity gate (core/gate/src/lib.rs): core and proto link without std, and the gate would notice if they did not.
#
#     scripts/gate.sh
#
# 1. The gate builds: no std anywhere in the graph of core and proto.
# 2. Planted: the gate plus a tiny crate that uses std must NOT build.
# 3. Planted: the gate with std switched on in a dependency that core itself uses must NOT build.
#
# Everything is built from a copy beside the build artefacts, with the versions of our Cargo.lock; the tree stays as it is.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=scripts/env.sh
. scripts/env.sh

say() { printf 'gate: %s\n' "$*"; }
die() { printf 'gate: error: %s\n' "$*" >&2; exit 1; }

# Always the same folder: cargo keeps artefacts per path, and a new path each time would pile them up.
scratch="$CARGO_TARGET_DIR/gate"
mkdir -p "$scratch"
exec 9>"$scratch/.lock"
flock 9
rm -rf "${scratch:?}"/*
log="$scratch/log"

# A copy of the gate whose paths lead back to the tree, and whose versions are ours.
copy_gate() {
    local to="$scratch/$1"
    mkdir -p "$to"
    cp -r core/gate/src "$to/src"
    sed -e "s#path = \"\.\./\.\./proto\"#path = \"$root/proto\"#" -e "s#path = \"\.\.\"#path = \"$root/core\"#" \
        core/gate/Cargo.toml >"$to/Cargo.toml"
    if ! grep -qF "path = \"$root/core\"" "$to/Cargo.toml" || ! grep -qF "path = \"$root/proto\"" "$to/Cargo.toml"; then
        die "core/gate/Cargo.toml no longer names core and proto as this script expects; adapt copy_gate"
    fi
    if [ -f Cargo.lock ]; then cp Cargo.lock "$to/Cargo.lock"; fi
}

build() { cargo build --manifest-path "$scratch/$1/Cargo.toml" >"$log" 2>&1 9>&-; }

# Inserts a line below [dependencies].
add_dependency() { sed -i "/^\[dependencies\]/a $2" "$scratch/$1/Cargo.toml"; }

# $1 = copy, $2 = what was planted. It must fail, and for the right reason.
must_fail() {
    if build "$1"; then
        die "the gate is blind: it built although $2. Repair core/gate before trusting anything it says."
    fi
    if ! grep -qE 'E0152|duplicate lang item' "$log"; then
        tail -n 40 "$log" >&2
        die "with $2 the build failed, but not because of std (above). The planted case needs repair."
    fi
    say "bites: fails when $2"
}

copy_gate clean
if ! build clean; then
    tail -n 60 "$log" >&2
    if grep -qE 'E0152|duplicate lang item' "$log"; then
        die "std has entered the graph of core or proto. The crate that brings it: cargo tree -p wukong-core -e normal,features.
            Remedy: default-features = false on it in Cargo.toml, or a dependency that works without std."
    fi
    die "core or proto does not build on its own (above)"
fi
say "core and proto link without std"

copy_gate planted-crate
mkdir -p "$scratch/uses-std/src"
printf '[package]\nname = "uses-std"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$scratch/uses-std/Cargo.toml"
printf 'pub fn now() -> std::time::Instant { std::time::Instant::now() }\n' >"$scratch/uses-std/src/lib.rs"
add_dependency planted-crate "uses-std = { path = \"$scratch/uses-std\" }"
printf 'use uses_std as _;\n' >>"$scratch/planted-crate/src/lib.rs"
must_fail planted-crate "a dependency uses std"

copy_gate planted-feature
add_dependency planted-feature 'bytes = { version = "1", default-features = false, features = ["std"] }'
must_fail planted-feature "core's own dependency 'bytes' has its std feature on"
