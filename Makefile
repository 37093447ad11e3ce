# What a newcomer runs: `make demo`, `make test`. Everything happens in .venv; nothing else on the machine is touched,
# except that models and recordings are kept in the user's cache (`.venv/bin/wieldy doctor` shows where).

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
# The models and recordings the tests need; `wieldy models list` says what they are.
TEST_MODELS := whisper-tiny.en conversation pygame-sounds

.DEFAULT_GOAL := help
.PHONY: help demo models test slow lint claims bench docs readme clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/base.stamp ## transcribe a real telephone call and an example meeting; needs no torch
	@$(BIN)/python examples/demo.py

models: .venv/everything.stamp ## fetch what the tests need, once, into the user's cache
	@for name in $(TEST_MODELS); do \
		$(BIN)/wieldy models where $$name >/dev/null 2>&1 || $(BIN)/wieldy models get $$name || exit 1; \
	done

test: models ## all fast tests (< 4 minutes)
	@$(BIN)/python -m pytest -n 2 -m "not slow"

slow: models ## the slow tests
	@$(BIN)/python -m pytest -m slow

lint: .venv/everything.stamp ## style, types and layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

claims: models ## every claim at full scale, one at a time; stores what they found
	@$(BIN)/python -m wieldy.claims

bench: models ## speed and memory against named peers
	@$(BIN)/python -m benchmarks

docs: .venv/everything.stamp ## the documentation, into site/
	@$(BIN)/mkdocs build --strict

readme: .venv/everything.stamp ## the generated table in README.md
	@$(BIN)/python scripts/catalog_pages.py

clean: ## what a build leaves behind; .venv and the user's cache stay
	rm -rf build dist site .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find src tests benchmarks scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "wieldy needs Python 3.11 or newer: run make with PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# The base installation has no torch. A stamp is older than what it depends on when the installation is stale.
.venv/base.stamp: $(BUILD_INPUTS) | $(BIN)/python
	@echo "installing wieldy into .venv"
	@started=$$(date +%s); $(PIP_INSTALL) --editable . && echo "installed in $$(($$(date +%s) - started)) s"
	@touch $@

.venv/everything.stamp: $(BUILD_INPUTS) | $(BIN)/python
	@echo "installing wieldy with everything the tests need into .venv"
	@started=$$(date +%s); $(PIP_INSTALL) --editable '.[all,dev,docs]' && echo "installed in $$(($$(date +%s) - started)) s"
	@touch .venv/base.stamp $@
