# What you run while you work on Pushhub. `make test` needs nothing but Go and
# Debian: it installs the Redis and the Chromium that the tests use for real.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZ    ?= 30s

.DEFAULT_GOAL := help
.PHONY: help run build check test deps bench microbench fuzz

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

# Each row of docs/performance.md, against the yardstick in the same run.
ROW = bin/loadtest $(1) --floor --server bin/pushhub || failed="$$failed $(2)"
bench: build ## the rows of docs/performance.md, with their ratios and limits
	$(GO) build -o bin/loadtest ./cmd/loadtest
	@failed=; \
	$(call ROW,broadcast --rounds 3 --max-cpu-ratio 1.05 --max-user-cpu 0.5,broadcast); \
	$(call ROW,broadcast --rounds 3 --sse 1 --max-cpu-ratio 1.15,sse); \
	$(call ROW,broadcast --rounds 3 --log redis --max-cpu-ratio 1.15,redis); \
	$(call ROW,jobs --rounds 3 --max-cpu-ratio 1.4,jobs); \
	$(call ROW,jobs --rounds 3 --log redis --raw --max-cpu-ratio 1.6,raw); \
	$(call ROW,storm --rounds 3 --max-cpu-ratio 1.8,storm); \
	$(call ROW,saturate --clients 1000 --limit 100ms --rate 100 --duration 3s --warmup 1s --min-rate-ratio 4,saturate); \
	$(call ROW,saturate --clients 10000 --limit 500ms --rate 10 --duration 3s --warmup 1s --min-rate-ratio 3,saturate); \
	bin/loadtest idle --rounds 3 --max-bytes 2048 --max-goroutines 100 --server bin/pushhub || failed="$$failed idle"; \
	bin/loadtest idle --sse 1 --rounds 3 --max-bytes 2048 --max-goroutines 100 --server bin/pushhub || failed="$$failed idle"; \
	[ -z "$$failed" ] || { echo "over their limits:$$failed"; exit 1; }

microbench: ## the Go benchmarks, five times each
	$(GO) test -run='^$$' -bench=. -benchmem -count=5 ./...

fuzz: ## every fuzz target for FUZZ (30s) each
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list='^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZ) $$pkg || exit 1; \
	  done; \
	done
