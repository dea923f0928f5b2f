# Everything goes through .venv, which the first target that needs it makes. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
SOURCES := $(shell find collector receivers processors exporters connectors extensions -name '*.pyx' -o -name '*.pxd' 2>/dev/null)
DURATION ?= 0
SOAK_DURATION := $(if $(filter-out 0,$(DURATION)),$(DURATION),3600)
FUZZ_SECONDS ?= 120
PYTEST_ARGS ?=
PACKAGES := collector config receivers processors exporters connectors extensions

.PHONY: help run test test-all soak lint format types imports bench backends e2e plugin sanitize fuzz ci clean lock

help: ## List the targets
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/.run: requirements.lock pyproject.toml setup.py $(SOURCES)
	@scripts/setup run

.venv/.dev: requirements-dev.lock pyproject.toml setup.py $(SOURCES)
	@scripts/setup dev

run: .venv/.run ## Run the gateway on its embedded default, fed by the simulated platform (DURATION=15 ends it by itself)
	@.venv/bin/tailrace demo --duration $(DURATION)

test: .venv/.dev ## Run every test (those that need a real backend skip with the reason; see `make backends`)
	@$(PY) -m pytest $(PYTEST_ARGS)

test-all: .venv/.dev ## Run every test, with the full table of faults by exporters; a missing backend is an error
	@TAILRACE_SLOW=1 TAILRACE_REQUIRE_BACKENDS=1 $(PY) -m pytest -m "" $(PYTEST_ARGS)

soak: .venv/.dev ## An hour of load: steady memory, no leak, a closed ledger (DURATION=300 for five minutes)
	@$(PY) benchmarks/soak.py --duration $(SOAK_DURATION)

e2e: .venv/.dev ## Run only the tests against real servers
	@TAILRACE_REQUIRE_BACKENDS=1 $(PY) -m pytest -m e2e $(PYTEST_ARGS)

lint: .venv/.dev ## ruff: rules and format
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

format: .venv/.dev ## ruff: write the format and safe fixes
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

types: .venv/.dev ## mypy --strict
	@.venv/bin/mypy

imports: .venv/.dev ## The layers: import-linter, and the same for .pyx and .pxd
	@.venv/bin/lint-imports && $(PY) scripts/check_cython_imports.py

bench: .venv/.dev ## The kernels beside protobuf, then the whole gateway beside the Go collector: CPU per million spans
	@$(PY) benchmarks/kernels.py && $(PY) benchmarks/gateway.py

backends: ## Build the real servers and clients of the tests: Prometheus, Jaeger, Loki, the Go collector, SDKs (needs go >= 1.26, node, java, mvn)
	@nice -n 10 bash tests/backends/install

plugin: .venv/.dev ## Install the example plug-in beside Tailrace in a clean environment, test it and run it
	@scripts/check_plugin

sanitize: .venv/.dev ## The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer (gcc)
	@scripts/sanitize

fuzz: .venv/.dev ## Coverage-guided fuzzing of the kernels for two minutes, under AddressSanitizer (clang; FUZZ_SECONDS=...)
	@scripts/fuzz $(FUZZ_SECONDS)

ci: ## Exactly what CI runs
	@bash .ci/run

lock: .venv/.dev ## Write the lock files anew from pyproject.toml
	@scripts/lock

clean: ## Remove the environment and everything that was built
	@rm -rf .venv build *.egg-info && find $(PACKAGES) \( -name '*.so' -o -name '*.c' \) -delete
