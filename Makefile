# Every target works alone on a fresh clone: it needs Python 3.10 or newer and make, nothing else.

PYTHON ?= python3
PYTEST_ARGS ?=

VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLED_DOCS := $(VENV)/.installed-docs
INSTALLED_TYPES := $(VENV)/.installed-types

PEERS := .venv-peers
INTEROP := .venv-interop
ENGINES := .venv-engines
MINIMUM := .venv-minimum
SDIST := build/sdist

.PHONY: help demo test test-fast test-minimum test-sdist test-interop test-engines coverage docs agreement format lint types check clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## fit a model to the sleep study and print what it found
	$(BIN)/python -m sklearn_mackay

test: $(INSTALLED_TEST)  ## run the tests and doctests; options go in PYTEST_ARGS="-k name"
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(INSTALLED_TEST)  ## run the quick tests only, and the doctests of the package
	$(BIN)/python -m pytest --numprocesses 2 -m 'not slow' tests sklearn_mackay $(PYTEST_ARGS)

test-minimum: $(MINIMUM)/.created  ## run the quick tests with the oldest versions that setup.cfg allows, all at once
	$(MINIMUM)/bin/python -m pytest --numprocesses 2 -m 'not slow' tests sklearn_mackay $(PYTEST_ARGS)

# PYTHONPATH is for the processes that tests start, which would import the checkout.
test-sdist: $(INSTALLED_TEST)  ## build the sdist, the wheel from it, and run the quick tests of what they hold
	rm -rf $(SDIST)
	$(BIN)/python -m build --outdir $(SDIST)
	mkdir $(SDIST)/source
	tar -xzf $(SDIST)/*.tar.gz --strip-components 1 -C $(SDIST)/source
	$(BIN)/python -m zipfile -e $(SDIST)/*.whl $(SDIST)/wheel
	diff -r $(SDIST)/source/sklearn_mackay $(SDIST)/wheel/sklearn_mackay
	cd $(SDIST)/source && export PYTHONPATH="$$PWD" && \
		(cd / && $(abspath $(BIN))/python -c 'import os, sklearn_mackay as package; \
			assert package.__file__.startswith(os.environ["PYTHONPATH"]), package.__file__') && \
		$(abspath $(BIN))/python -m pytest --numprocesses 2 -m 'not slow' tests sklearn_mackay $(PYTEST_ARGS)

test-interop: $(INTEROP)/.created  ## test what other libraries do with fits and tables: skops, mlflow, shap, DuckDB ...
	$(INTEROP)/bin/python -m pytest -m 'not slow' tests/test_interop.py tests/test_selectors.py \
		tests/frames tests/model/test_export.py tests/display/test_tables_of_fits.py $(PYTEST_ARGS)
	$(INTEROP)/bin/python -m pytest tests/test_rows_in_parts.py -k "not dask and not ibis" $(PYTEST_ARGS)

# Spark runs on a JVM, version 17 or 21.
test-engines: $(ENGINES)/.created  ## fit rows that live in Dask, Spark, Ibis, and score them there; needs Java 17
	@java -version 2>&1 | grep -qE 'version "(17|21)' || \
		{ echo "test-engines needs a Java runtime of version 17 or 21 (java -version), for Spark."; exit 1; }
	$(ENGINES)/bin/python -m pytest tests/test_engines.py $(PYTEST_ARGS)
	$(ENGINES)/bin/python -m pytest tests/test_rows_in_parts.py -k "dask or ibis or spark" $(PYTEST_ARGS)

coverage: $(INSTALLED_TEST)  ## run the tests and list lines and branches of the package they miss
	$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/python -m coverage report

docs: $(INSTALLED_DOCS)  ## build the documentation in docs/_build/html, running the gallery
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

agreement: $(INSTALLED_TEST) $(PEERS)/.created  ## compare answers with other programs' on small data
	$(BIN)/python benchmarks/run.py --workload all --fast --repeats 0 \
		--peer-python $(PEERS)/bin/python

format: $(INSTALLED_TEST)  ## rewrite the source files in the project's format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lint: $(INSTALLED_TEST)  ## look for faults and for files that are not formatted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED_TYPES)  ## check the type annotations of the package
	$(BIN)/mypy

check: test lint types  ## run the tests, look for faults and check the types

clean:  ## remove the virtual environment and all caches; do this to change PYTHON
	rm -rf .venv .venv-* build dist docs/_build docs/gallery docs/generated *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage
	find sklearn_mackay tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The package is installed in editable mode, so only a change of its metadata asks for another run of
# pip. A target that fails leaves no stamp, and --clear removes an environment that was left half made.
$(CREATED):
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(PEERS)/.created:
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
		glmm gpboost himalaya mixedlm mixedlm-rs scikit-learn statsmodels pandas
	@touch $@

$(INTEROP)/.created: setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--editable '.[interop]'
	@touch $@

$(ENGINES)/.created: setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--editable '.[engines]'
	@touch $@

# A minimum is the version that a requirement of setup.cfg names, the first if several do. On Python
# 3.10 to 3.12: the oldest TensorFlow has wheels for no later one.
$(MINIMUM)/.created: setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear $(MINIMUM)
	sed -nE 's/^    ([a-z0-9_-]+)(\[[a-z]+\])?>=([0-9.]+).*$$/\1==\3/p' setup.cfg \
		| awk -F = '!seen[$$1]++' > $(MINIMUM)/constraints.txt
	$(MINIMUM)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--constraint $(MINIMUM)/constraints.txt --editable '.[test,polars,duckdb,arrow]'
	@touch $@

$(INSTALLED): $(CREATED) setup.cfg pyproject.toml
	@echo "Installing sklearn_mackay and TensorFlow into $(VENV); the first time takes some minutes."
	$(PIP_INSTALL) --editable .
	@touch $@

$(INSTALLED_TEST): $(INSTALLED)
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@

$(INSTALLED_TYPES): $(INSTALLED_TEST)
	$(PIP_INSTALL) --editable '.[types]'
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@
