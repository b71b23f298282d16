# What people who use and change towpath type. `make` alone explains.

CARGO ?= cargo
CONFIG ?= conf/towpath.toml
# Seeds that `make fuzz` and `make sim` go through; the tests' own default is far smaller.
SEEDS ?= 10000
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/release/towpath

.DEFAULT_GOAL := help
.PHONY: help build run test check bench doc fmt lint fuzz sim install clean

help: ## explain the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

build: ## build the release binary
	$(CARGO) build --release --bin towpath

run: build ## build and serve on loopback with conf/towpath.toml
	$(BINARY) serve --config $(CONFIG)

test: lint doc ## formatting, lints, documentation, and every test
	$(CARGO) test --all-targets
	$(CARGO) test --doc

check: ## type-check everything, quickly
	$(CARGO) check --all-targets

bench: ## measure the agent role beside HAProxy; prints one table
	bench/agent.sh

doc: ## build the documentation; a warning is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

fmt: ## format the code
	$(CARGO) fmt

lint: ## formatting and lints; a warning is an error
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

fuzz: ## feed the codecs many more mutated inputs; SEEDS=N
	TOWPATH_SEEDS=$(SEEDS) $(CARGO) test --release --test wire -- --nocapture

sim: ## run the simulation over many more seeds; SEEDS=N
	TOWPATH_SEEDS=$(SEEDS) $(CARGO) test --release --test simulation -- --nocapture

install: build ## install below $(DESTDIR)$(PREFIX); a configuration that is there stays
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/towpath
	test -e $(DESTDIR)$(SYSCONFDIR)/towpath/towpath.toml || \
		install -D -m 644 conf/towpath.toml $(DESTDIR)$(SYSCONFDIR)/towpath/towpath.toml

clean: ## remove what was built; stored data stays
	$(CARGO) clean
