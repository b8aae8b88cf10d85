# What you run while you work on Pushhub. `make test` needs nothing but Go and
# Debian: it installs the Redis and the Chromium that the tests use for real.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZ    ?= 30s
TORTURE ?= 10m

.DEFAULT_GOAL := help
.PHONY: help run build check test deps bench microbench torture search fuzz

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

run: ## the demo: hub, page and simulated jobs, with nothing else installed
	$(GO) run ./cmd/pushhub dev

build: ## one static binary, bin/pushhub
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/pushhub ./cmd/pushhub

check: ## format, modules, vet (also of what other systems run), fix, staticcheck
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./cmd/pushhub ./transport/...
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
LOAD = bin/loadtest $(1) --rounds 3 --server bin/pushhub || failed="$$failed '$(1)'"
ROW  = $(call LOAD,$(1) --duration 8s)
MOST = --warmup 1s --duration 3s

bench: build deps ## the rows of docs/performance.md, with their ratios and limits
	$(GO) build -o bin/loadtest ./cmd/loadtest
	@failed=; \
	$(call ROW,broadcast --max-cpu-ratio 1.05 --max-user-cpu 0.5 --max-allocs 0.05); \
	$(call ROW,broadcast --sse 1 --max-cpu-ratio 1.15); \
	$(call ROW,broadcast --log redis --max-cpu-ratio 1.15); \
	$(call ROW,jobs --max-cpu-ratio 1.4); \
	$(call ROW,jobs --log redis --raw --max-cpu-ratio 1.6); \
	$(call ROW,storm --max-cpu-ratio 1.8); \
	$(call LOAD,idle --max-bytes 2048 --max-goroutines 100); \
	$(call LOAD,idle --sse 1 --max-bytes 2048 --max-goroutines 100); \
	$(call LOAD,slow --max-stall-ratio 1.2 --max-bytes 1114112); \
	$(call LOAD,saturate --clients 1000 --limit 100ms --rate 100 $(MOST) --min-rate-ratio 4); \
	$(call LOAD,saturate --clients 10000 --limit 500ms --rate 10 $(MOST) --min-rate-ratio 3); \
	$(call LOAD,reconnect --kill --log redis --topics 10 --per-client 10 --rate 20 --duration 24s --inflight 256 --max-reads 100); \
	$(call ROW,broadcast --clients 1000 --rate 100 --max-cpu-ratio 1.16); \
	$(call ROW,broadcast --clients 5000 --rate 20 --max-cpu-ratio 1.16); \
	$(call ROW,broadcast --clients 19000 --rate 5 --max-cpu-ratio 1.16); \
	$(call ROW,broadcast --topics 100 --rate 1000 --batch 100 --max-cpu-ratio 1.16); \
	$(call ROW,broadcast --topics 10000 --per-client 100 --rate 1000 --batch 100 --max-cpu-ratio 1.16); \
	$(call ROW,broadcast --topics 10000 --rate 10000 --batch 1000 --linger 80ms --max-cpu-ratio 1.16); \
	[ -z "$$failed" ] || { echo "over their limits:$$failed"; exit 1; }

torture: build deps ## everything goes wrong, for TORTURE (10m) with each kind of Redis, and 3,000 readers see a rolling restart; fails on any silent loss
	$(GO) build -o bin/loadtest ./cmd/loadtest
	@for redis in standalone sentinel cluster; do \
	  bin/loadtest torture --server bin/pushhub --redis $$redis --duration $(TORTURE) || exit 1; \
	done
	bin/loadtest torture --server bin/pushhub --readers 3000 --rate 10 --raw-rate 10 --drain 20s --faults roll --duration 1s

microbench: ## the Go benchmarks, five times each
	$(GO) test -run='^$$' -bench=. -benchmem -count=5 ./...

search: ## the search for holes (hub/search), until it finds one; SEARCH_N schedules, from SEED on
	$(GO) test ./hub -run='TestSearch$$' -v -timeout=0 -search.n=$(or $(SEARCH_N),-1) -search.seed=$(or $(SEED),1)

fuzz: ## every fuzz target for FUZZ (30s) each
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list='^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZ) $$pkg || exit 1; \
	  done; \
	done
