# Everything runs from .venv, which `make setup` makes from the pins in requirements.lock.

PYTHON ?= python3
UV ?= uv
# Tests run in this many processes; `make test JOBS=0` runs them in one.
JOBS ?= 2
# `make demo PORT=8001` where 8000 is taken.
PORT ?= 8000
VENV := .venv
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint format bench bench-quick recall lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with all dependencies

demo: $(READY) ## run everything on an embedded PostgreSQL and send it a simulated lab day
	$(VENV)/bin/ledger up --demo --port $(PORT)

up: $(READY) ## run everything on an embedded PostgreSQL
	$(VENV)/bin/ledger up --port $(PORT)

test: lint ## run every check and every test
	$(VENV)/bin/pytest -n $(JOBS)

lint: $(READY) ## check format, rules, types, import directions and the checked-in schemas
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/ledger openapi --check

format: $(READY) ## format the code and mend what the linter can
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

bench: $(READY) ## measure every row of the table into benchmarks/RESULTS.md, within 40 minutes
	$(VENV)/bin/python -m benchmarks

bench-quick: $(READY) ## measure with smaller logs in fewer rounds, within three minutes
	$(VENV)/bin/python -m benchmarks --quick

recall: $(READY) ## measure on simulated months how much of what was lost is found
	$(VENV)/bin/python -m benchmarks.recall

lock: ## pin the newest versions that pyproject.toml allows (needs uv)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv, or make lock UV=path/to/uv" >&2; exit 1; }
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" \
		--quiet --output-file requirements.lock

clean: ## remove .venv and what the tools left
	rm -rf $(VENV) dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The file stands for a complete install: it is written last, and anew when the pins change.
$(READY): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed, and '$(PYTHON)' was not found; name yours: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, and $$($(PYTHON) --version 2>&1) was found; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned dependencies into $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
