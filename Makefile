# What people who use and change towpath type. `make` alone explains.

CARGO ?= cargo
CONFIG ?= conf/towpath.toml
# Seeds that `make fuzz` and `make sim` go through; the tests' own default is far smaller.
SEEDS ?= 10000
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
MANDIR ?= $(PREFIX)/share/man/man1
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
TARGET := $(or $(CARGO_TARGET_DIR),target)
BUILT := $(TARGET)/release/towpath
# The program that is run and installed; one that is named is not built.
BINARY ?= $(BUILT)

# Most tests wait for something most of the time, so more of them than there are cores run at once.
export RUST_TEST_THREADS ?= $(shell n=$$(nproc); echo $$((n < 4 ? 4 : n)))

.DEFAULT_GOAL := help
.PHONY: help build run test check bench doc fmt lint fuzz sim install uninstall clean

help: ## explain the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

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

# Through a pipe a file is gone when its maker fails; by way of a variable it is not even begun.
define generate
	text=$$($(BINARY) gen $(1)) && install -d $(DESTDIR)$(dir $(2)) && \
		printf '%s\n' "$$text" > $(DESTDIR)$(2) && chmod 644 $(DESTDIR)$(2)
endef

install: $(if $(filter $(BUILT),$(BINARY)),build) ## install below $(DESTDIR)$(PREFIX); a configuration that is there stays
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/towpath
	test -e $(DESTDIR)$(SYSCONFDIR)/towpath/towpath.toml || \
		install -D -m 644 conf/towpath.toml $(DESTDIR)$(SYSCONFDIR)/towpath/towpath.toml
	install -d $(DESTDIR)$(UNITDIR)
	sed 's#/usr/bin/towpath#$(PREFIX)/bin/towpath#; s#/etc/towpath#$(SYSCONFDIR)/towpath#' \
		conf/towpath.service > $(DESTDIR)$(UNITDIR)/towpath.service
	chmod 644 $(DESTDIR)$(UNITDIR)/towpath.service
	$(call generate,man,$(MANDIR)/towpath.1)
	$(call generate,completions bash,$(BASHDIR)/towpath)
	$(call generate,completions zsh,$(ZSHDIR)/_towpath)
	$(call generate,completions fish,$(FISHDIR)/towpath.fish)

uninstall: ## remove what install has put there; configuration and data stay
	rm -f $(DESTDIR)$(PREFIX)/bin/towpath $(DESTDIR)$(UNITDIR)/towpath.service \
		$(DESTDIR)$(MANDIR)/towpath.1 $(DESTDIR)$(BASHDIR)/towpath \
		$(DESTDIR)$(ZSHDIR)/_towpath $(DESTDIR)$(FISHDIR)/towpath.fish

clean: ## remove what was built; stored data stays
	$(CARGO) clean
