#!/bin/sh
# Builds every target of fuzz_targets on the stable toolchain and runs each for an equal share of SECONDS.
# usage: fuzz/run.sh SECONDS [TARGET...]
# New inputs and crashes stay under ${FUZZ_TARGET_DIR:-fuzz/target}; corpus/TARGET holds the committed seeds.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
budget=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
if [ $# -eq 0 ]; then
    for file in "$here"/fuzz_targets/*.rs; do
        set -- "$@" "$(basename "$file" .rs)"
    done
fi
share=$((budget / $#))
[ "$share" -ge 1 ] || share=1

CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$here/target}
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(CDPATH='' cd -- "$CARGO_TARGET_DIR" && pwd)
export CARGO_TARGET_DIR
host=$(rustc -vV | sed -n 's/^host: //p')
sancov="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions"

bins=
for target in "$@"; do
    bins="$bins --bin $target"
done
# shellcheck disable=SC2086
RUSTFLAGS=$sancov cargo build --manifest-path "$here/Cargo.toml" --release --target "$host" $bins

failed=
for target in "$@"; do
    found=$CARGO_TARGET_DIR/corpus/$target
    crashes=$CARGO_TARGET_DIR/crashes/$target
    log=$CARGO_TARGET_DIR/$target.log
    seeds=$here/corpus/$target
    mkdir -p "$found" "$crashes"
    set -- "$found"
    [ ! -d "$seeds" ] || set -- "$@" "$seeds"
    status=0
    "$CARGO_TARGET_DIR/$host/release/$target" "$@" -max_len=4096 -timeout=10 -max_total_time="$share" \
        -print_final_stats=1 -artifact_prefix="$crashes/" >"$log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    echo "fuzz $target: ${executions:-0} executions in ${share}s, coverage ${covered:-0}, exit $status"
    if [ "$status" -ne 0 ]; then
        tail -n 40 "$log"
        failed="$failed $target"
    fi
done

if [ -n "$failed" ]; then
    echo "fuzz: FAILED:$failed (inputs in $CARGO_TARGET_DIR/crashes)" >&2
    exit 1
fi
