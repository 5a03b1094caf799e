# Every target makes its own environment: nothing is needed but Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TESTS ?= tests
PROCESSES ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-clients check bench bench-peers chaos clean

help: ## Show what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(STAMP): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --compile-bytecode --python $(RUN) -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv $(VENV) && $(RUN) -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@

demo: $(STAMP) ## See all of it against the sandbox, in under a minute
	@$(VENV)/bin/shunter demo

test: $(STAMP) ## Run the tests
	@$(RUN) -m pytest -n $(PROCESSES) --dist loadfile $(TESTS)

test-clients: $(STAMP) ## Run clients of OpenAI's API, each installed under build/, against the gateway
	@$(RUN) -m tests.clients

check: $(STAMP) ## Lint, format, types, import rules
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --config pyproject.toml

bench: $(STAMP) ## Measure, as ratios beside something in the same run
	@$(RUN) -m tests.bench

bench-peers: $(STAMP) ## Measure beside a proxy and clients of the Batch API, installed under build/ (SHUNTER_BENCH_PEER_ROWS)
	@$(RUN) -m tests.bench.peers.proxy
	@$(RUN) -m tests.bench.peers

chaos: $(STAMP) ## Kill, stop and starve workers for some minutes (CHAOS_SEED, CHAOS_ROUNDS), and audit every bill
	@$(RUN) -m tests.chaos_long

clean: ## Remove what the other targets made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
