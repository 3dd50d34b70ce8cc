# make venv | run | test | test-long | regress | bless | docs | bench | lint | clean
#
# Needs only make, git and a Python 3.11 or newer with venv. Each target makes the virtual
# environment by itself when it is missing or when its inputs have changed.

PYTHON ?= python3
VENV   ?= .venv

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP   := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv run test test-long regress bless docs bench lint clean distclean

help:
	@echo "make venv       the virtual environment, .venv"
	@echo "make run        the first experiment: latency and throughput against queue depth"
	@echo "make test       ruff, mypy, import layers, kernels, pytest; the seconds of each at the end"
	@echo "make test-long  the tests that take minutes"
	@echo "make regress    compare with the baseline; the report is build/regress/report.html"
	@echo "make bless      make what is now the baseline (docs/howto/regress.md)"
	@echo "make docs       make anew what is generated in docs/ and results/README.md"
	@echo "make bench      how fast the simulator itself is"
	@echo "make lint       as test, without pytest"
	@echo "make clean      remove caches and build products (distclean: the environments as well)"

venv: $(STAMP)

# The build tools are installed first and from the same constraints, so nothing is fetched unpinned:
# hatchling for this project, setuptools for fio-plot, which is published as source only.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=...")'
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) hatchling editables setuptools
	@$(PIP) --no-build-isolation -e '.[test,notebook,cluster,trace]'
	@touch $@

run: $(STAMP)
	$(BIN)/python -m experiments.queue_depth --fio examples/randread-4k.fio --device "$$(cat examples/device.txt)"

test: $(STAMP)
	@$(BIN)/python scripts/check.py

test-long: $(STAMP)
	$(BIN)/python -m pytest -m long -n 2 --dist worksteal

regress: $(STAMP)
	$(BIN)/python -m sim regress --report build/regress

bless: $(STAMP)
	$(BIN)/python -m sim regress --bless

docs: $(STAMP)
	$(BIN)/python scripts/reference.py
	$(BIN)/python scripts/readme_figure.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks

lint: $(STAMP)
	@$(BIN)/python scripts/check.py ruff mypy imports

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path './.venv*' -prune -o -path ./.git -prune -o -name __pycache__ -type d -print \
	  | xargs rm -rf

distclean: clean
	rm -rf .venv .venv-*
