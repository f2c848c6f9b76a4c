# make demo [FOR=60s] [RATE=50000] [EVOLVE=1]
#                                    the whole pipeline on this machine, with a live fleet of sensors; EVOLVE=1: the
#                                    schema changes under load
# make test                          everything that is tested, on the real Kafka, registry, S3 and ClickHouse engine
# make faults                        break the wire to each dependency in each way; writes the table of docs/guarantees.md
# make soak [SEEDS=] [MINUTES=] [TIMES=] [ROUNDS=] [FUZZ=] [OLD=]
#                                    hours of it: a million simulated worlds, S3 away for half an hour at full load, faults,
#                                    crashes, an older version beside this one, fuzzing; writes target/soak/report.html
# make fuzz [FUZZ=10]                coverage-guided fuzzing of everything that reads bytes, so many minutes a target
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
MINUTES  ?= 30
TIMES    ?= 10
ROUNDS   ?= 5
FUZZ     ?= 10
OLD      ?= HEAD~20
AFTER    ?= 420

CARGO := cargo
KAPPA := target/release/kappa

.PHONY: help demo test faults soak fuzz lint bench bench-page load screenshots stack-up stack-down build

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

faults:
	@tests/require cargo cc perl make python3 go mvn
	$(CARGO) build --release --locked --workspace --features kappa-pipeline/fail-points
	@rm -f target/faults.jsonl
	KAPPA_FAULTS_FILE=$(CURDIR)/target/faults.jsonl "$$(deploy/local/python-env test)" -B -m pytest -q -p no:cacheprovider \
		tests/e2e/test_wire_faults.py tests/e2e/test_long_outage.py
	@python3 -B tests/soak/faults_table.py target/faults.jsonl --into docs/guarantees.md

soak:
	@SEEDS=$(SEEDS) MINUTES=$(MINUTES) TIMES=$(TIMES) ROUNDS=$(ROUNDS) FUZZ=$(FUZZ) OLD=$(OLD) tests/soak/run

fuzz:
	@MINUTES=$(FUZZ) fuzz/coverage/run

lint:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/coverage/Cargo.toml --check
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
