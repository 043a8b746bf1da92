# `make demo` and `make test` are all a newcomer needs. Each makes .venv first, from the locked and hashed versions.
# Needs python3 (3.11 or newer), pip and make. Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes share the tests, evenly to the end. More for pytest: make test ARGS="-k query"
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
SHARED := -n 2 --dist worksteal
# The order of `make test-random`; SEED=N repeats one.
SEED := $(or $(SEED),$(shell date +%s))

# Processes that tests start would compile the whole package again and again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test tests test-random lint bench format lock core-test test-floors release-check wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train, build and search a drawn fashion world, in front of you (runs/demo/report.html)"
	@echo "make test    lint and all tests"
	@echo "make test-random   all tests in random order; SEED=N repeats one"
	@echo "make lint    ruff format check, ruff, types"
	@echo "make bench   the benchmarks"
	@echo "make wheel   dist/: a wheel and an sdist"
	@echo "make release-check   all that is run before a release: hours"

$(READY): requirements-all.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fashionrec needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(INSTALL) -r requirements-all.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m fashionrec demo

test: lint tests

tests: $(READY)
	$(PYTEST) $(SHARED) $(ARGS)

test-random: $(READY)
	@echo "make test-random SEED=$(SEED) repeats this order"
	$(PYTEST) $(SHARED) --random-order-seed=$(SEED) $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

bench: $(READY)
	$(BIN)/python -m benchmarks

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The serving plane alone, in an environment of its own: installs, weighs and queries without torch.
core-test:
	$(PYTHON) tests/core_install.py

# The lowest versions that pyproject.toml allows, in .venv-floors, on the lowest Python: the core's suite. With torch: FLOORS=--train
test-floors:
	$(PYTHON) tests/floors.py $(FLOORS)

# Before a release: everything of `make test`, the slow tests, all that is marked release or soak, the demo and the benchmarks.
release-check: core-test test test-floors
	$(PYTEST) $(SHARED) -m "slow or release or soak"
	$(MAKE) demo
	$(BIN)/python -m benchmarks startup query prepare build incremental index

# Needs uv. torch is held to a release whose torchvision loads beside it on every machine that we test.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --output-file requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra train --extra dev --constraint constraints.txt --output-file requirements-all.lock

# dist/fashionrec-VERSION-py3-none-any.whl and .tar.gz, which pip installs without this checkout.
wheel: $(READY)
	$(BIN)/python -m hatchling build

clean:
	rm -rf $(VENV) .venv-floors runs/demo
