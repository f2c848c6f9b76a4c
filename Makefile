# make demo [FOR=60s] [RATE=50000] [EVOLVE=1]
#                                    the whole pipeline on this machine, with a live fleet of sensors; EVOLVE=1: the
#                                    schema changes under load
# make test                          everything that is tested, on the real Kafka, registry, S3 and ClickHouse engine
# make soak [SEEDS=1000000]          the protocol, simulated with that many seeds: crashes, zombies, pauses, lost answers
# make lint                          formatting, clippy, licences and advisories
# make bench [CASES=main|all|...]    drain preloaded topics through everything; writes target/bench/drain.json
# make load [SCENARIO=steady] [RATE=] [FOR=] [TARGET=local|embedded]
#                                    open-loop load, judged by gates; writes target/load/report.html and .json
# make bench-page                    how long the live page answers over 100,000 sensors; writes target/bench/dashboard.json
# make screenshots [AFTER=420]       the pictures of the README, of a live demo in a headless Chromium
# make stack-up · make stack-down    the local stack alone; addresses in target/stack/env

FOR      ?=
RATE     ?=
EVOLVE   ?=
SCENARIO ?= steady
TARGET   ?= local
CASES    ?= main
SEEDS    ?= 1000000
AFTER    ?= 420

CARGO := cargo
KAPPA := target/release/kappa

.PHONY: help demo test soak lint bench bench-page load screenshots stack-up stack-down build

help:
	@sed -n 's/^# //p' Makefile

build:
	@tests/require cargo cc perl make
	@echo "building kappa (the first time takes some minutes: librdkafka and OpenSSL are compiled too)"
	$(CARGO) build --release --locked --bin kappa

demo:
	@tests/require cargo cc perl make python3
	@$(MAKE) --no-print-directory build
	@deploy/local/python-env demo > /dev/null
	$(KAPPA) demo $(if $(RATE),--rate $(RATE)) $(if $(FOR),--for $(FOR)) $(if $(EVOLVE),--evolve)

test:
	@tests/run

soak:
	@tests/require cargo cc perl make
	KAPPA_SIM_SEEDS=$(SEEDS) $(CARGO) test --release --locked --workspace --test simulation -- --nocapture every_seed

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny > /dev/null; then cargo deny --locked check; \
	else echo "cargo-deny is not installed (cargo install cargo-deny): licences and advisories were not checked"; fi

bench:
	@benches/drain/run $(CASES)

bench-page:
	@benches/dashboard/run

screenshots:
	@tests/require cargo cc perl make python3 chromium chromedriver
	@$(MAKE) --no-print-directory build
	@"$$(deploy/local/python-env test)" -B docs/images/make-screenshots $(AFTER)

load:
	@tests/require cargo cc perl make python3 $(if $(filter local,$(TARGET)),go mvn)
	$(CARGO) build --release --locked --bin kappa --bin kappa-loadtest
	target/release/kappa-loadtest run $(SCENARIO) --target $(TARGET) $(if $(RATE),--rate $(RATE)) $(if $(FOR),--for $(FOR))

stack-up:
	@deploy/local/stack up

stack-down:
	@deploy/local/stack down
