PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup run test coverage test-slurm lint format clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv with the pinned packages; does nothing the second time

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("lozo_bench needs Python 3.11 or newer; this is %d.%d. Try: make setup PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## fine-tune the embedded model; more: make run ARGS="optimizer=mezo seed=s1"
	$(BIN)/python -m lozo_bench.train $(ARGS)

test: setup ## run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'not slurm' $(ARGS)

coverage: setup ## run the tests and show what they do not reach
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'not slurm' --cov --cov-report=term $(ARGS)

test-slurm: setup ## run the tests on a real one-node SLURM; skips them where there can be none
	$(BIN)/python -m pytest -m slurm -rs tests/slurm $(ARGS)

lint: setup ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## put the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and caches; outputs/ is kept
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
