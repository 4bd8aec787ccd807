# shellcheck shell=bash
# One environment for every cargo call of this tree. To be sourced, not run:
#
#     . scripts/env.sh && cargo build
#
# It prints nothing and changes nothing on disk. Whoever sets one of these variables beforehand wins.
#
#   WUKONG_CACHE      what outlives a clone: the RocksDB library and the build artefacts
#   CARGO_TARGET_DIR  a folder outside the tree, one for each place where a clone lies: a fresh clone in the same place
#                     recompiles our own crates only. Never share one between two clones: cargo names our crates by their
#                     path inside the workspace and judges them by mtime, so it would run the other clone's code.
#   ROCKSDB_LIB_DIR   the library that scripts/rocksdb.sh built once; without it cargo would compile RocksDB again for
#   ROCKSDB_STATIC    every profile and every set of flags (34 CPU minutes each)
#
# Any difference in these between two calls makes cargo rebuild, so nothing else may set them.

if [ -n "${BASH_SOURCE[0]:-}" ]; then
    WUKONG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
else
    WUKONG_ROOT=$(pwd)
fi
export WUKONG_ROOT
export WUKONG_CACHE="${WUKONG_CACHE:-${HOME:?set HOME or WUKONG_CACHE}/.cache/wukongim}"
# Also what plain cargo uses, by way of .cargo/local.toml.
WUKONG_TARGET_DIR="$WUKONG_CACHE/target/${WUKONG_ROOT##*/}-$(printf %s "$WUKONG_ROOT" | cksum | cut -d' ' -f1)"
export WUKONG_TARGET_DIR
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$WUKONG_TARGET_DIR}"

if [ -z "${ROCKSDB_LIB_DIR:-}" ]; then
    ROCKSDB_LIB_DIR=$("$WUKONG_ROOT/scripts/rocksdb.sh" --print-dir)
fi
export ROCKSDB_LIB_DIR
export ROCKSDB_STATIC="${ROCKSDB_STATIC:-1}"

# rust-toolchain.toml pins a version number. Where rustup has that very compiler only under the name "stable",
# use it under that name instead of failing (or downloading it a second time).
if [ -z "${RUSTUP_TOOLCHAIN:-}" ] && command -v rustup >/dev/null 2>&1; then
    wukong_pin=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$WUKONG_ROOT/rust-toolchain.toml" 2>/dev/null)
    if [ -n "$wukong_pin" ] \
        && ! rustup run "$wukong_pin" rustc --version >/dev/null 2>&1 \
        && rustup run stable rustc --version 2>/dev/null | grep -qF "rustc $wukong_pin "; then
        export RUSTUP_TOOLCHAIN=stable
    fi
    unset wukong_pin
fi
