# `make train` and `make test` set up everything they need in .venv, on a machine that has Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help train test quality lint bench course pictures

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

train: .venv/.train ## train a ResNet on handwritten digits: the first thing to try
	$(BIN)/dlx train model=resnet optim=adam

test: .venv/.test ## run the tests
	$(BIN)/python -m pytest -n 2

quality: .venv/.test ## run the long quality checks too
	$(BIN)/python -m pytest -m slow

lint: .venv/.lint ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.bench ## time dlx beside a bare loop and other trainers, many runs as one, the dashboard over many runs
	$(BIN)/python tests/benchmarks/loop.py
	$(BIN)/python tests/benchmarks/many.py
	$(BIN)/python tests/benchmarks/fx_passes.py
	$(BIN)/python tests/benchmarks/sequences.py
	$(BIN)/python tests/benchmarks/densities.py
	$(BIN)/python tests/benchmarks/detection.py
	$(BIN)/python tests/benchmarks/adversarial.py
	$(BIN)/python tests/benchmarks/dashboard.py --page

course: .venv/.test ## train every system and claim of the course: hours, but what is there is not trained again
	$(BIN)/python docs/course.py $(ARGS)

pictures: .venv/.test ## make the pictures of the README
	$(BIN)/python docs/pictures.py

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

# A stamp per set of extras, made anew when the dependencies change.
.venv/.train: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@
.venv/.test: .venv/.train
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@
.venv/.lint: .venv/.train
	$(BIN)/python -m pip install --quiet --editable '.[lint]'
	@touch $@
.venv/.bench: .venv/.test
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@
