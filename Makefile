# Two commands do everything: `make serve` and `make test`. Both install what they need once, and work offline after.

PYTHON ?= python3.11
BIN := .venv/bin
NODE := tests/conformance/node
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# PORT=9000 make serve
MINICPMV_PORT := $(or $(PORT),$(MINICPMV_PORT),8000)

.PHONY: help serve test check format openapi bench clean

help:
	@echo "make serve    install what serving needs, start on the embedded model (PORT=8000)"
	@echo "make test     install the rest, run all tests"
	@echo "make check    formatting, lint, types"
	@echo "make format   apply formatting and lint fixes"
	@echo "make openapi  write openapi.yaml from the app"
	@echo "make bench    the benchmarks that take minutes"

$(BIN)/python:
	$(PYTHON) -m venv .venv

# A stamp each for the two sets of packages, so that a second run asks no package index.
.venv/.installed-serve: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what serving needs ..."
	@$(PIP) --editable .
	@touch $@

# torch by its exact version first: left to a resolver, torchvision would pull a CUDA build of several GB.
.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what converting and testing need ..."
	@$(PIP) torch==2.13.0
	@$(PIP) --editable ".[convert,dev]"
	@touch $@ .venv/.installed-serve

# The JavaScript clients of the conformance tests; without npm those tests skip, with that reason.
$(NODE)/node_modules/.installed: $(NODE)/package.json $(NODE)/package-lock.json
	@if command -v npm >/dev/null; then \
		echo "installing the JavaScript clients ..." && npm ci --silent --prefix $(NODE) && touch $@; fi

# hint.py waits for readiness and prints a curl line; it ends with the service, whose process replaces this shell.
serve: .venv/.installed-serve
	@export MINICPMV_PORT=$(MINICPMV_PORT); $(BIN)/python samples/hint.py & exec $(BIN)/python -m service

test: .venv/.installed-dev $(NODE)/node_modules/.installed
	$(BIN)/python -m pytest

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

openapi: .venv/.installed-dev
	$(BIN)/python -m service.openapi > openapi.yaml

bench: .venv/.installed-dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv $(NODE)/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
