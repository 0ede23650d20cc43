# The commands that people and CI use. `make help` lists them.
#
# Everything is built with the release profile (optimised, with line tables), once, for the demo, the tests and the checks.
# CARGO_TARGET_DIR may point anywhere; it is `target` by default.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ROOT := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))
export CARGO_TARGET_DIR ?= $(ROOT)/target
BINARY := $(CARGO_TARGET_DIR)/release/switchback
TOOLS := $(CARGO_TARGET_DIR)/tools
ONNXRUNTIME_DIR := $(CARGO_TARGET_DIR)/onnxruntime
CARGO_DENY_VERSION := 0.20.2
INFERNO_VERSION := 0.12.8

# ONNX Runtime is loaded when a program runs. Whoever has it already names it with ORT_DYLIB_PATH.
ONNXRUNTIME := $(ONNXRUNTIME_DIR)/libonnxruntime.$(if $(filter Darwin,$(shell uname -s)),dylib,so)
ORT_DYLIB_PATH ?= $(ONNXRUNTIME)
export ORT_DYLIB_PATH

# What `make demo` passes on: `make demo ARGS=--json`.
ARGS ?=

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: wasm-targets ## Build the router, its policies and the test programs
	cargo build --release --locked --workspace

.PHONY: demo
demo: build onnxruntime ## Run the whole system on this machine: rankers, router, users (ARGS=--json for machines)
	@$(BINARY) demo $(ARGS)

.PHONY: test
test: test-tools onnxruntime build ## Install what the tests need, and run them all
	cargo test --release --locked --workspace --doc
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --release --locked --workspace; \
	else \
	  cargo test --release --locked --workspace --lib --bins --tests; \
	fi

.PHONY: test-full
test-full: test full-forms mlserver fuzz conformance ## `make test`, then everything that takes long: promises in full, MLServer, fuzzing, conformance
	@echo "make test-full: all clean"

# The system tests that have a long form, which is the one that is promised: those that ask for SWITCHBACK_FULL.
FULL_FORMS = $(patsubst tests/%.rs,--test %,$(shell grep -l SWITCHBACK_FULL tests/*.rs))

.PHONY: full-forms
full-forms: test-tools onnxruntime build ## The system tests with a long form, in that form; reports are kept
	SWITCHBACK_FULL=1 cargo test --release --locked --workspace $(FULL_FORMS) -- --test-threads=1 --nocapture

.PHONY: mlserver
mlserver: test-tools build ## Deploy, promote and roll back with a real MLServer behind every pool (tests/mlserver/report.md)
	@scripts/install_test_tools.sh mlserver $(TOOLS)/mlserver
	cargo test --release --locked --workspace --test mlserver -- --nocapture

.PHONY: leaks
leaks: build ## What 400 plugin swaps and 400 reloads leave behind (tests/leaks/report.md)
	SWITCHBACK_FULL=1 cargo test --release --locked --workspace --test leaks -- --test-threads=1 --nocapture

# Executions of each fuzz target.
FUZZ ?= 1000000

.PHONY: fuzz
fuzz: build ## A million executions of each fuzz target (FUZZ=...), with a report (tests/fuzz/report.md)
	tests/fuzz/run.sh $(FUZZ)

.PHONY: conformance
conformance: build ## h2spec, h1spec, WebSocket cases and slow attacks, with a report (tests/conformance/report.md)
	tests/conformance/run.sh --skip-missing --report tests/conformance/report.md

.PHONY: bench
bench: wasm-targets instructions-tools ## What a request costs here and elsewhere: nginx, HAProxy, Envoy, Caddy, pingora (ARGS=--quick; bench/results/bench.md)
	bench/run.sh $(ARGS)

.PHONY: dist
dist: wasm-targets instructions-tools ## Build the router as it is shipped: fat LTO and a profile of what it does under load (half an hour)
	scripts/build_dist.sh $(ARGS)

.PHONY: instructions
instructions: build instructions-tools ## Instructions and system calls of a query against the kept ones (bench/instructions.json); names what grew
	bench/instructions.py $(BINARY)

.PHONY: instructions-dist
instructions-dist: instructions-tools ## The same of the program that is shipped, against bench/instructions-dist.json (before a release; after `make dist`)
	cargo build --release --locked -p switchback-bench
	bench/instructions.py $(CARGO_TARGET_DIR)/dist/switchback --kept bench/instructions-dist.json

.PHONY: growth
growth: instructions-tools ## How the cost of a query grows with routes, rules, connections, workers, fields and bodies (bench/results/growth.md)
	scripts/build_dist.sh --as-is
	cargo build --release --locked -p switchback-bench
	bench/growth.py $(CARGO_TARGET_DIR)/dist/switchback --out bench/results/growth.md

.PHONY: flame
flame: build instructions-tools $(TOOLS)/bin/inferno-$(INFERNO_VERSION) ## A flame graph of the router under load (bench/results/flame.svg); needs perf
	bench/flame.py $(BINARY) bench/results/flame.svg --tools $(TOOLS)

.PHONY: instructions-tools
instructions-tools:
	@scripts/install_test_tools.sh instructions

.PHONY: check
check: wasm-targets cargo-deny shellcheck ## What CI runs beside the tests: format, lints, docs, dependencies, scripts, tidiness, cost
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items
	@# Advisories are left out: their database is fetched from GitHub, and this check has to work without it.
	@# `cargo deny check advisories` runs them where GitHub is reachable.
	$(TOOLS)/bin/cargo-deny --log-level warn --locked check bans licenses sources
	$(SHELLCHECK) .ci/run scripts/*.sh tests/*/*.sh bench/*.sh
	cargo test --release --locked --workspace --test tidy -- --quiet
	$(MAKE) instructions
	@echo "make check: all clean"

.PHONY: onnxruntime
onnxruntime: $(ORT_DYLIB_PATH) ## Fetch the ONNX Runtime library (34 MB) that rankers load

$(ONNXRUNTIME):
	scripts/fetch_onnxruntime.sh $(ONNXRUNTIME_DIR)

.PHONY: test-tools
test-tools:
	@scripts/install_test_tools.sh redis clang node promtool systemd wasm seaweed $(TOOLS)/seaweed models $(TOOLS)/models mlflow $(TOOLS)/mlflow

.PHONY: wasm-targets
wasm-targets:
	@scripts/install_test_tools.sh wasm

$(TOOLS)/bin/inferno-$(INFERNO_VERSION):
	cargo install --locked --root $(TOOLS) --target-dir $(TOOLS)/build inferno@$(INFERNO_VERSION)
	@rm -rf $(TOOLS)/build
	@ln -sf inferno-flamegraph $@

.PHONY: cargo-deny
cargo-deny: $(TOOLS)/bin/cargo-deny-$(CARGO_DENY_VERSION)

$(TOOLS)/bin/cargo-deny-$(CARGO_DENY_VERSION):
	@echo "building cargo-deny $(CARGO_DENY_VERSION), once: some minutes"
	cargo install --locked --no-default-features --root $(TOOLS) --target-dir $(TOOLS)/build cargo-deny@$(CARGO_DENY_VERSION)
	@rm -rf $(TOOLS)/build
	@ln -sf cargo-deny $@

# The one on the PATH, or the one from PyPI in a folder of its own.
SHELLCHECK = $(shell command -v shellcheck || echo $(TOOLS)/shellcheck/bin/shellcheck)

.PHONY: shellcheck
shellcheck:
	@scripts/install_test_tools.sh shellcheck $(TOOLS)/shellcheck
