# One door for people and machines. `make demo` and `make test` need nothing but python3 (3.11 to 3.13):
# each makes .venv from the lock file first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# One process per core with one thread each; the tests of a file stay together and share what they made.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

.PHONY: install demo test test-all check fmt docs golden

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: install
	$(BIN)/tag2mask demo --out demo_run

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m "slow or not slow"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

fmt: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python docs/build.py build/docs

# Compares the working tree with a commit, bit for bit; see benchmarks/golden/README.md.
BASE ?= 96bf254
golden: install
	$(BIN)/python benchmarks/golden/compare.py --base $(BASE)
