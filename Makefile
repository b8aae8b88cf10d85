# What you run while you work on Pushhub. `make test` needs nothing but Go and
# Debian: it installs the Redis and the Chromium that the tests use for real.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZ    ?= 30s

.DEFAULT_GOAL := help
.PHONY: help run build check test deps bench fuzz

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

run: ## the demo: hub, page and simulated jobs, with nothing else installed
	$(GO) run ./cmd/pushhub dev

build: ## one static binary, bin/pushhub
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/pushhub ./cmd/pushhub

check: ## format, modules, vet, fix, staticcheck
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) fix -diff ./...
	$(GO) tool staticcheck ./...

test: deps ## all tests, with the race detector, on real Redis and Chromium
	$(GO) test -race -shuffle=on -timeout=15m ./...

# Installs what the tests need, as root or by sudo; nothing where it is there.
deps:
	@missing=; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	[ -z "$$missing" ] && exit 0; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	echo "installing:$$missing"; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null

bench: ## the benchmarks, five times each
	$(GO) test -run='^$$' -bench=. -benchmem -count=5 ./...

fuzz: ## every fuzz target for FUZZ (30s) each
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list='^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZ) $$pkg || exit 1; \
	  done; \
	done
