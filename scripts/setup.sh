#!/usr/bin/env bash
# Brings a machine to the point where this tree builds. Says what it does; does only what is missing; safe to repeat.
#
#     scripts/setup.sh           everything a build needs: Rust, Debian packages, the RocksDB library
#     scripts/setup.sh test      the same, and what the end-to-end tests need: Node with npm, strace
#     scripts/setup.sh packages  Rust and Debian packages only (enough to check, not to link)
#
# Debian packages are installed with apt-get as root or through sudo. Rust and Node are never installed: they are the
# user's choice, and a clear error says what is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
goal="${1:-build}"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 2; }
have() { command -v "$1" >/dev/null 2>&1; }

case "$goal" in
build | test | packages) ;;
*) die "unknown goal '$goal' (known: build, test, packages)" ;;
esac

# --- Rust -------------------------------------------------------------------------------------------------------------
# shellcheck source=scripts/env.sh
. "$root/scripts/env.sh"
# Ours is named after the compiler, which may be about to be installed; somebody else's stays as it is.
own_rocksdb=no
case "$ROCKSDB_LIB_DIR" in "$WUKONG_CACHE"/rocksdb-*) own_rocksdb=yes ;; esac
pin=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$root/rust-toolchain.toml" 2>/dev/null || true)
have cargo || die "cargo not found. Install Rust ${pin:-1.95} or newer with rustup (https://rustup.rs), then repeat."
if ! cargo_version=$(cd "$root" && cargo --version 2>&1); then
    printf '%s\n' "$cargo_version" >&2
    die "cargo does not start in this tree. With rustup: rustup toolchain install ${pin:-stable}"
fi
(cd "$root" && rustc --version >/dev/null 2>&1) || die "rustc does not start. With rustup: rustup toolchain install ${pin:-stable}"

# --- Debian packages --------------------------------------------------------------------------------------------------
missing=()
why=()
need() { missing+=("$1"); why+=("$1 ($2)"); }

# bindgen, which writes the RocksDB bindings, loads libclang at build time and wants the compiler's own headers beside it.
libclang_version() {
    local lib base
    for lib in /usr/lib/llvm-*/lib/libclang-*.so* /usr/lib/llvm-*/lib/libclang.so* /usr/lib/*/libclang-[0-9]*.so*; do
        [ -e "$lib" ] || continue
        base=${lib##*/libclang-}
        base=${base%%.*}
        case "$lib" in /usr/lib/llvm-*) base=${lib#/usr/lib/llvm-} base=${base%%/*} ;; esac
        echo "$base"
        return 0
    done
    return 1
}
# Debian 12 has 14; later releases have later ones.
libclang_candidate() {
    local v
    for v in 14 19 18 17 16 15 20 21; do
        if apt-cache show "libclang1-$v" >/dev/null 2>&1; then echo "$v"; return 0; fi
    done
    echo 14
}
clang_headers() {
    compgen -G "/usr/lib/llvm-$1/lib/clang/*/include/stddef.h" >/dev/null || compgen -G "/usr/lib/clang/$1*/include/stddef.h" >/dev/null
}

if [ -z "${LIBCLANG_PATH:-}" ]; then
    if v=$(libclang_version); then
        clang_headers "$v" || need "libclang-common-$v-dev" "headers that go with libclang $v"
    else
        v=$(libclang_candidate)
        need "libclang1-$v" "libclang for the RocksDB bindings"
        need "libclang-common-$v-dev" "its headers"
    fi
fi
cxx=${CXX:-c++}
have "${cxx%% *}" || need g++ "C++ compiler for RocksDB"
have cc || need gcc "linker for Rust"
have make || need make "the Makefile"
have flock || need util-linux "flock"
if [ "$goal" = test ]; then
    have strace || need strace "tests look at the system calls of a running node"
fi

if [ ${#missing[@]} -eq 0 ]; then
    say "$cargo_version; system packages: all there"
else
    say "$cargo_version; missing system packages: ${why[*]}"
    have apt-get || die "this is no Debian system (no apt-get). Install by hand what corresponds to: ${missing[*]}"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || die "not root and no sudo. Run as root: apt-get install -y --no-install-recommends ${missing[*]}"
        as_root=(sudo)
    fi
    say "running: apt-get install -y --no-install-recommends ${missing[*]}"
    log=$(mktemp)
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c \
        'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"' _ "${missing[@]}" \
        </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get failed (above). Repair it, or install by hand: ${missing[*]}"
    fi
    rm -f "$log"
    say "installed: ${missing[*]}"
fi

# --- Node, for the published SDK in the end-to-end tests -------------------------------------------------------------------
if [ "$goal" = test ]; then
    have node || die "node not found. The end-to-end tests drive the published JavaScript SDK: install Node.js 18 or newer."
    have npm || die "npm not found. It comes with Node.js; on Debian: apt-get install npm"
    major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
    [ "$major" -ge 18 ] || die "node $(node --version) is too old for the SDK: 18 or newer is needed."
    say "node $(node --version), npm $(npm --version)"
fi

# --- RocksDB ----------------------------------------------------------------------------------------------------------
if [ "$own_rocksdb" = yes ]; then
    ROCKSDB_LIB_DIR=$("$root/scripts/rocksdb.sh" --print-dir)
    if [ "$goal" != packages ]; then "$root/scripts/rocksdb.sh"; fi
elif [ -f "$ROCKSDB_LIB_DIR/librocksdb.a" ]; then
    say "RocksDB: using yours, ROCKSDB_LIB_DIR=$ROCKSDB_LIB_DIR"
else
    die "ROCKSDB_LIB_DIR=$ROCKSDB_LIB_DIR holds no librocksdb.a. Unset it to have the library built, or correct it."
fi

# --- The same environment for a bare `cargo build` ----------------------------------------------------------------------
# .cargo/config.toml includes this file when it exists (it is ignored by git). Without it a cargo call outside make would
# compile RocksDB from source, once per profile.
settings="$root/.cargo/local.toml"
wanted="# Written by scripts/setup.sh so that cargo outside make sees what scripts/env.sh sets. Safe to delete.
[build]
target-dir = \"$WUKONG_TARGET_DIR\"

[env]
ROCKSDB_LIB_DIR = \"$ROCKSDB_LIB_DIR\"
ROCKSDB_STATIC = \"$ROCKSDB_STATIC\""
if [ "$goal" = packages ] && [ ! -f "$ROCKSDB_LIB_DIR/librocksdb.a" ]; then
    say "the RocksDB library is not built yet; make setup, run or test will do that"
elif [ "$(cat "$settings" 2>/dev/null)" != "$wanted" ]; then
    printf '%s\n' "$wanted" >"$settings"
    say "wrote .cargo/local.toml: plain cargo now uses the same library and the same target folder as make"
fi
say "build artefacts: $CARGO_TARGET_DIR"
