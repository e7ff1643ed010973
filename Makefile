# Everything runs from .venv, which is made from the pins in two lock files: requirements-run.lock
# has what Ledger needs to run, requirements.lock also has the tools for its development. Production
# installs requirements-production.lock, without a PostgreSQL; requirements-build.lock builds that.

PYTHON ?= python3
UV ?= uv
# Tests run in this many processes, which wait some of the time; `make test JOBS=0` runs them in one.
JOBS ?= 3
# Properties are tried with this part of the examples that they name.
EXAMPLES ?= 0.5
# In order, for most modules share a server; who has no tests left takes some of the other's.
PYTEST = $(VENV)/bin/pytest -n $(JOBS) --dist worksteal
# `make demo PORT=8001` where 8000 is taken.
PORT ?= 8000
# `make image BASE=python:3.13-slim@sha256:...` pins the base by its digest.
BASE ?= python:3.13-slim
IMAGE ?= ledger
DOCKER ?= docker
VENV := .venv
# Each of these files stands for a complete installation, and is written last.
RUN := $(VENV)/.ready-to-run
READY := $(VENV)/.ready

# What builds the package itself, as in pyproject.toml.
BUILD := hatchling>=1.27
# What writes the SBOM.
SBOM := cyclonedx-bom==7.5.0
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
COMPILE = $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock" --quiet
PIP := $(VENV)/bin/pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-picture page-pictures pictures reference docs up test test-fast test-thorough lint sql-schema format bench bench-quick recall faults audit lock dist sbom image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything for development

demo: $(RUN) ## run everything on an embedded PostgreSQL and send it a simulated lab day
	$(VENV)/bin/ledger up --demo --port $(PORT)

demo-picture: $(READY) ## draw docs/demo.svg from a real demo
	$(VENV)/bin/python docs/draw_demo.py

page-pictures: $(READY) ## draw the pictures of docs/page.md from a real demo; needs Chromium
	$(VENV)/bin/python -m docs.draw_page

pictures: $(READY) ## draw the pictures of docs/concepts from the functions that they show
	$(VENV)/bin/python -m docs.draw_concepts

reference: $(READY) sql-schema ## write docs/reference and api_schema from the code
	$(VENV)/bin/ledger openapi --output api_schema
	$(VENV)/bin/python -m docs.reference_pages
	$(VENV)/bin/python -m docs.metrics_page

docs: $(READY) ## build the documentation as a site into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

up: $(RUN) ## run everything on an embedded PostgreSQL
	$(VENV)/bin/ledger up --port $(PORT)

test: lint ## run every check and every test
	LEDGER_TEST_EXAMPLES=$(EXAMPLES) $(PYTEST)

test-fast: lint ## run every check and the tests that are not slow
	LEDGER_TEST_EXAMPLES=$(EXAMPLES) $(PYTEST) -m "not slow"

# As every night. Commands are fresh processes here, and not forks of one that has loaded them.
test-thorough: lint ## run every check and every test, with many more examples
	LEDGER_TEST_EXAMPLES=10 LEDGER_TEST_FUZZ_EXAMPLES=60 LEDGER_TEST_FORK=no $(PYTEST)

lint: $(READY) ## check format, rules, types, import directions and the checked-in schemas
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/ledger openapi --check

sql-schema: $(READY) ## write api_schema/sql.md, which describes the public views
	$(VENV)/bin/python -m tests.support.sql_document

format: $(READY) ## format the code and mend what the linter can
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

bench: $(READY) ## measure every row of the table into benchmarks/RESULTS.md, within 40 minutes
	$(VENV)/bin/python -m benchmarks

bench-quick: $(READY) ## measure with smaller logs in fewer rounds, within three minutes
	$(VENV)/bin/python -m benchmarks --quick

recall: $(READY) ## measure on simulated months how much of what was lost is found
	$(VENV)/bin/python -m evaluation.recall

faults: $(READY) ## kill, freeze and damage everything under load, and count (needs an hour; SEED=n repeats)
	$(VENV)/bin/python -m faults $(if $(SEED),--seed $(SEED))

audit: $(READY) ## compare the pinned dependencies with known advisories (needs the internet)
	$(VENV)/bin/python -m tests.support.audit

lock: ## pin the newest versions that pyproject.toml allows (needs uv)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv, or make lock UV=path/to/uv" >&2; exit 1; }
	$(COMPILE) --all-extras --upgrade --output-file requirements.lock pyproject.toml
	echo '$(BUILD)' | $(COMPILE) --extra embedded --constraints requirements.lock \
		--output-file requirements-run.lock pyproject.toml -
	$(COMPILE) --extra alerts --extra tracing --constraints requirements.lock \
		--output-file requirements-production.lock pyproject.toml
	printf '%s\n' '$(BUILD)' 'uv>=0.9' | $(COMPILE) --upgrade-package uv --constraints requirements.lock \
		--output-file requirements-build.lock -

dist: ## build wheel and sdist into dist (needs uv)
	@command -v $(UV) >/dev/null || { echo "make dist needs uv: pip install --require-hashes -r requirements-build.lock, or make dist UV=path/to/uv" >&2; exit 1; }
	rm -rf dist
	$(UV) build --quiet --require-hashes --build-constraints requirements-build.lock --out-dir dist

sbom: ## write what production installs into dist/ledger-VERSION.cdx.json (CycloneDX; needs uv)
	@command -v $(UV) >/dev/null || { echo "make sbom needs uv: pip install --require-hashes -r requirements-build.lock, or make sbom UV=path/to/uv" >&2; exit 1; }
	mkdir -p dist
	$(UV) tool run --quiet --from '$(SBOM)' cyclonedx-py requirements requirements-production.lock \
		--pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-file dist/ledger-$(VERSION).cdx.json

image: ## build the container's image as IMAGE (ledger) on BASE (needs docker)
	$(DOCKER) build --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
		--tag $(IMAGE):$(VERSION) --tag $(IMAGE):latest .

clean: ## remove .venv and what the tools left
	rm -rf $(VENV) dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): pyproject.toml requirements-run.lock
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed, and '$(PYTHON)' was not found; name yours: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, and $$($(PYTHON) --version 2>&1) was found; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing what Ledger needs to run into $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --require-hashes -r requirements-run.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# Added to what is there, so that a demo that runs goes on.
$(READY): $(RUN) requirements.lock
	@echo "Installing the tools for development into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@touch $@
