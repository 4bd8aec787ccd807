# Thin on purpose: each target is one or two commands that can be typed by hand after `. scripts/env.sh`.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run test check fmt fmt-check clippy tidy gate deny sim tierb doctor small mutants fuzz bench clean

ENV := source scripts/env.sh &&
# In CI the lock file decides; elsewhere cargo may extend it.
LOCKED := $(if $(CI),$(if $(wildcard Cargo.lock),--locked))

SEEDS ?= 1000
# A seed of a cluster takes about ten times as long as one of the other two.
CLUSTER_SEEDS ?= $(shell expr $(SEEDS) / 10 + 1)
SECONDS ?= 60
BENCH ?= --workload w1 --self-host
ARGS ?=
SIM_ARGS ?=
TIERB_ARGS ?=
SIM := cargo run $(LOCKED) --profile sim -p wukong-sim --bin sim

help: ## this list
	@echo "First time on a machine with Rust: make run, or make test (wants Node too). Both set everything up and say so."
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: ## system packages and the RocksDB library (once, 10 to 20 minutes); says what it does
	@scripts/setup.sh

run: setup ## build the server and run it: make run ARGS="--data-dir DIR"
	@$(ENV) { test -x "$$CARGO_TARGET_DIR/release/wukongim" || echo "run: first release build: a few minutes"; }
	@$(ENV) cargo build $(LOCKED) --release -p wukong-runtime
	@$(ENV) exec "$$CARGO_TARGET_DIR/release/wukongim" run $(ARGS)

test: ## every test, end to end ones included: make test ARGS="-p wukong-core name"
	@scripts/setup.sh test
	@$(ENV) { test -d "$$CARGO_TARGET_DIR/debug" || echo "test: first build, release and debug: several minutes"; }
	$(ENV) cargo build $(LOCKED) --release -p wukong-runtime
	$(ENV) WUKONGIM_BIN="$$CARGO_TARGET_DIR/release/wukongim" cargo test $(LOCKED) $(if $(ARGS),$(ARGS),--workspace)

check: ## fast, changes nothing: format, lints, rules of the tree, purity gate, licences
	@scripts/setup.sh packages
	@$(MAKE) --no-print-directory fmt-check clippy tidy gate deny

fmt: ## format everything
	$(ENV) cargo fmt --all && rustfmt --edition 2024 core/gate/src/lib.rs
	$(if $(wildcard fuzz/Cargo.toml),$(ENV) cargo fmt --manifest-path fuzz/Cargo.toml)

fmt-check:
	$(ENV) cargo fmt --all --check && rustfmt --edition 2024 --check core/gate/src/lib.rs
	$(if $(wildcard fuzz/Cargo.toml),$(ENV) cargo fmt --manifest-path fuzz/Cargo.toml --check)

clippy:
	$(ENV) cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings

tidy: ## the rules of the tree (tests/tidy.rs)
	$(ENV) cargo test $(LOCKED) -q -p wukong-tests --no-default-features --test tidy

gate: ## core and proto link without std, and the gate would notice
	@scripts/gate.sh

deny: ## licences, bans, sources of third-party crates
	@scripts/deny.sh

sim: ## simulated worlds: make sim SEEDS=10000
	$(ENV) $(SIM) -- sweep --seeds $(SEEDS) $(SIM_ARGS)
	$(ENV) $(SIM) -- raft sweep --seeds $(SEEDS) --jobs 2 $(SIM_ARGS)
	$(ENV) $(SIM) -- cluster sweep --seeds $(CLUSTER_SEEDS) --ms 15000 --jobs 2 $(SIM_ARGS)

# A target folder of its own: other flags, and no artefact is shared.
TIERB_ENV := $(ENV) RUSTFLAGS="--cfg madsim" CARGO_TARGET_DIR="$$CARGO_TARGET_DIR/madsim"
TIERB := $(TIERB_ENV) cargo run $(LOCKED) --profile sim -p wukong-sim --bin tierb --

tierb: ## the real shell in simulated worlds: make tierb SEEDS=1000 TIERB_ARGS="--from 900"
ifeq ($(findstring --print,$(TIERB_ARGS)),)
	$(TIERB_ENV) cargo test $(LOCKED) -q --profile sim -p wukong-sim --test tierb
endif
	$(TIERB) --seeds $(SEEDS) --jobs 2 $(TIERB_ARGS)
ifeq ($(findstring --print,$(TIERB_ARGS)),)
	$(TIERB) run tests/scenarios/cluster/*.scn --seeds $(SEEDS) --jobs 2 $(TIERB_ARGS)
	$(TIERB) compare --seeds $(SEEDS) --jobs 2 $(TIERB_ARGS)
endif

doctor: ## the simulator is deterministic
	$(ENV) $(SIM) -- doctor
	$(ENV) $(SIM) -- raft doctor
	$(ENV) $(SIM) -- cluster doctor

small: ## small worlds of replication, in every order (a few minutes)
	$(ENV) $(SIM) -- raft small

mutants: ## plant known bugs; fails when the simulator misses one
	$(ENV) $(SIM) --features mutants -- mutants
	$(ENV) $(SIM) --features mutants -- raft mutants
	$(ENV) $(SIM) --features mutants -- cluster mutants
	$(ENV) cargo test $(LOCKED) --profile sim -p wukong-core -p wukong-sim --features mutants \
		--test transcripts --test planted planted

fuzz: ## all fuzz targets, that long together: make fuzz SECONDS=600
	$(ENV) FUZZ_TARGET_DIR="$${FUZZ_TARGET_DIR:-$$CARGO_TARGET_DIR/fuzz}" fuzz/run.sh $(SECONDS)

bench: ## load a node on this machine: make bench BENCH="--workload w1 --self-host"
	@scripts/setup.sh
	$(ENV) cargo run $(LOCKED) --release -p wukong-runtime -- bench $(BENCH)

clean: ## remove the build artefacts of this clone; keeps the RocksDB library
	$(ENV) cargo clean
