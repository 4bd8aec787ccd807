#!/usr/bin/env bash
# Builds the RocksDB static library once and keeps it outside the tree.
#
#     scripts/rocksdb.sh               build it unless it is there; says what it does
#     scripts/rocksdb.sh --print-dir   print the folder where it is, or will be; does nothing
#     scripts/rocksdb.sh --check       exit 0 when it is there, 1 when it is not, 3 when nothing needs it
#     scripts/rocksdb.sh --adopt FILE  put a librocksdb.a that was built elsewhere with the same versions into that folder
#
# Cargo would compile RocksDB anew for every profile and every set of RUSTFLAGS. With ROCKSDB_LIB_DIR and ROCKSDB_STATIC
# set (scripts/env.sh) it links this one instead. The folder's name holds everything that decides its content, so a new
# crate version or compiler gets a new folder and nothing is ever stale:
#
#     $WUKONG_CACHE/rocksdb-<librocksdb-sys version>-<features>-<compiler version>-<machine>/librocksdb.a
#
# Safe to interrupt (built in a folder aside, renamed at the end) and to start twice (a lock; the second one waits).
# lz4 is not in here: its crate compiles it in a second, and it does so in every build.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache="${WUKONG_CACHE:-${HOME:?set HOME or WUKONG_CACHE}/.cache/wukongim}"
features="lz4"

say() { printf 'rocksdb: %s\n' "$*"; }
die() { printf 'rocksdb: error: %s\n' "$*" >&2; exit 2; }

# The version of a package in Cargo.lock, or nothing.
locked() {
    [ -f "$root/Cargo.lock" ] || return 0
    awk -v want="name = \"$1\"" '$0 == want { getline; gsub(/"/, "", $3); print $3; exit }' "$root/Cargo.lock"
}

sys_version=$(locked librocksdb-sys)
crate_version=$(locked rocksdb)
needed=yes
if [ -z "$sys_version" ] || [ -z "$crate_version" ]; then
    # No lock file yet, or nothing in it uses RocksDB: the versions that Cargo.toml asks for at the time of writing.
    [ -f "$root/Cargo.lock" ] && needed=no
    sys_version="0.19.0+11.8.1"
    crate_version="0.25.0"
fi

compiler_id() {
    local cxx=${CXX:-c++} version kind=gcc
    command -v "${cxx%% *}" >/dev/null 2>&1 || { echo "none"; return; }
    # shellcheck disable=SC2086  # CXX may be "ccache g++"
    version=$($cxx -dumpfullversion -dumpversion 2>/dev/null || $cxx -dumpversion)
    # shellcheck disable=SC2086
    if $cxx --version 2>/dev/null | grep -qi clang; then kind=clang; fi
    echo "$kind$version"
}

compiler=$(compiler_id)
name="rocksdb-${sys_version//+/_}-$features-$compiler-$(uname -m)"
dir="$cache/$name"
library="$dir/librocksdb.a"

# Whatever lies in the folder was renamed into it whole; the size guards against a damaged disk or a hand that slipped.
present() { [ -f "$library" ] && [ "$(stat -c %s "$library")" -gt 10000000 ]; }

# $1 = a finished librocksdb.a, $2 = one line on where it comes from. Moves it into place in one step.
install_library() {
    local staging="$cache/.staging-$name"
    rm -rf "$staging"
    mkdir -p "$staging"
    cp "$1" "$staging/librocksdb.a"
    cat >"$staging/BUILD-INFO" <<INFO
librocksdb-sys $sys_version
rocksdb $crate_version
features $features
compiler $compiler
machine $(uname -m)
origin $2
date $(date -u +%Y-%m-%dT%H:%M:%SZ)
INFO
    rm -rf "$dir"
    mv "$staging" "$dir"
}

lock() {
    mkdir -p "$cache" || die "cannot create $cache; set WUKONG_CACHE to a folder that can be written"
    command -v flock >/dev/null 2>&1 || die "flock is missing; install it: apt-get install util-linux"
    exec 9>"$cache/.rocksdb.lock"
    if ! flock -n 9; then
        say "another build of it is running; waiting for that one"
        flock 9
    fi
}

build() {
    local work="$cache/.build-$name" log objects total started pid status
    # We hold the lock, so whatever is left here was interrupted.
    rm -rf "$cache"/.build-rocksdb-* "$cache"/.staging-rocksdb-*
    mkdir -p "$work/src"
    log="$work/build.log"
    cat >"$work/Cargo.toml" <<TOML
[package]
name = "rocksdb-once"
version = "0.0.0"
edition = "2021"
[dependencies]
rocksdb = { version = "=$crate_version", default-features = false, features = ["$features", "bindgen-runtime"] }
librocksdb-sys = { version = "=${sys_version%%+*}", default-features = false }
[workspace]
TOML
    echo '' >"$work/src/lib.rs"
    [ -f "$root/rust-toolchain.toml" ] && cp "$root/rust-toolchain.toml" "$work/"

    say "building RocksDB ${sys_version#*+} once ($features; $compiler; log: $log)"
    say "this takes 10 to 20 minutes on two cores, and is not repeated until the crate or the compiler changes"
    started=$SECONDS
    # A process group of its own, so that an interruption ends the compilers too; the caller's flags must not leak in.
    # shellcheck disable=SC2016  # $1 is the inner shell's
    setsid env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u ROCKSDB_COMPILE -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
        -u CARGO_BUILD_TARGET -u CARGO_TARGET_DIR \
        bash -c 'cd "$1" && exec cargo build --release --target-dir "$1/target"' _ "$work" \
        >"$log" 2>&1 9>&- </dev/null &
    pid=$!
    # shellcheck disable=SC2064
    trap "kill -TERM -- -$pid 2>/dev/null; rm -rf '$work'; say 'interrupted; nothing was kept'; exit 130" INT TERM HUP

    total=343
    local step=0
    while kill -0 "$pid" 2>/dev/null; do
        sleep 2
        step=$((step + 1))
        [ $((step % 15)) -eq 0 ] || continue
        objects=$(find "$work/target/release/build" -path '*librocksdb-sys*' -name '*.o' 2>/dev/null | wc -l)
        say "$(printf '%d of about %d objects, %d min %02d s' "$objects" "$total" \
            $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)))"
    done
    status=0
    wait "$pid" || status=$?
    trap - INT TERM HUP
    if [ "$status" -ne 0 ]; then
        tail -n 30 "$log" >&2
        die "the build failed (above: the end of $log). Missing compiler or libclang: run scripts/setup.sh"
    fi
    objects=$(find "$work/target/release/build" -path '*librocksdb-sys*' -name librocksdb.a | head -n 1)
    [ -n "$objects" ] || die "the build ended well but left no librocksdb.a; is ROCKSDB_LIB_DIR set in a cargo config file?"
    install_library "$objects" "built by scripts/rocksdb.sh in $((SECONDS - started)) s"
    rm -rf "$work"
    say "done in $(((SECONDS - started) / 60)) min: $library"
}

case "${1:-}" in
--print-dir) echo "$dir" ;;
--check)
    if present; then exit 0; fi
    [ "$needed" = yes ] || exit 3
    exit 1
    ;;
--adopt)
    [ -f "${2:-}" ] || die "--adopt needs the path of a librocksdb.a"
    [ "$compiler" != none ] || die "no C++ compiler found; run scripts/setup.sh"
    lock
    install_library "$2" "adopted from a finished build"
    present || die "$2 is too small to be RocksDB"
    say "kept as $library"
    ;;
"")
    if present; then
        say "cached: $library"
        exit 0
    fi
    if [ "$needed" = no ]; then
        say "no crate in Cargo.lock uses it yet; nothing to build"
        exit 0
    fi
    [ "$compiler" != none ] || die "no C++ compiler found; run scripts/setup.sh"
    command -v cargo >/dev/null 2>&1 || die "cargo not found; install Rust first (rustup)"
    lock
    # The one we waited for may have built it.
    if present; then say "cached: $library"; else build; fi
    ;;
*) die "unknown argument '$1' (known: --print-dir, --check, --adopt FILE)" ;;
esac
