PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup run check lint types test test-all coverage test-slurm gpu-check format clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## create .venv with the pinned packages; does nothing if it is up to date

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("lozo_bench needs Python 3.11 or newer; this is %d.%d. Try: make setup PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing the packages of requirements.lock into .venv: some minutes, several GB with CUDA"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## fine-tune the embedded model; pass options with ARGS, e.g. make run ARGS="optimizer=mezo seed=s1"
	$(BIN)/python -m lozo_bench.train $(ARGS)

check: lint types test ## check everything that a change must pass: style, types and tests

lint: setup ## check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## check the types of the package and of the scripts
	$(BIN)/mypy

test: setup ## run the tests, each behaviour with a few methods
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'not slurm and not thorough' $(ARGS)

test-all: setup ## run the tests with all methods, models and moments; before a change of the engine or the loop
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'not slurm' $(ARGS)

coverage: setup ## run the tests and list the lines that they do not cover
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'not slurm' --cov --cov-report=term $(ARGS)

test-slurm: setup ## run the tests on a real one-node SLURM; they are skipped where SLURM cannot run
	$(BIN)/python -m pytest -m slurm -rs tests/slurm $(ARGS)

gpu-check: setup ## check and measure this machine's GPU in eight minutes; lines go to outputs/gpu_check.jsonl
	@$(BIN)/python scripts/gpu_check.py $(ARGS) >outputs/gpu_check.jsonl

format: setup ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and the caches; keeps outputs/
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
