# `make` installs, runs the quick matrix and prints where the report is; `make test` runs the tests,
# `make test-slow` those that take minutes;
# `make results` writes the numbers in RESULTS.md and README.md anew from the archives in results/, and the pages
# in docs/ that follow from the plugins; `make docs` builds the site in build/site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# mypy finds the packages of splitleak by their folders' names
LINKS := build/types/splitleak

.PHONY: all quick test test-slow check results docs bench clean
.DEFAULT_GOAL := all

all: quick

$(INSTALLED): pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,timm]'
	touch $@

quick: $(INSTALLED)
	$(BIN)/splitleak run quick

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(LINKS) && mkdir -p $(LINKS)
	ln -s $(foreach folder,attacks defenses victims experiments,$(CURDIR)/$(folder)) $(LINKS)
	MYPYPATH=$(dir $(LINKS)) $(BIN)/mypy
	$(BIN)/lint-imports

results: $(INSTALLED)
	$(BIN)/python -m splitleak.experiments.tools.document RESULTS.md README.md
	$(BIN)/python -m splitleak.experiments.tools.pages docs

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python -m splitleak.experiments.benchmarks

clean:
	rm -rf runs
