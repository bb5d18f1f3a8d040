# One door for people and machines. Every target needs nothing but python3 (3.11 to 3.13): the first one
# creates .venv from the lock file. On Linux, `make install TORCH=cpu` avoids gigabytes of CUDA libraries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Python compiles a module when it is first imported; compiling all of them doubles the time of set-up.
INSTALL := $(PIP) install --no-compile
STAMP := $(VENV)/installed
TORCH_VERSION := 2.13.0
# CPU wheels have an index of their own. The lock file brings the few packages that they need.
TORCH_OPTIONS_cpu := --no-deps --index-url https://download.pytorch.org/whl/cpu
UV := build/uv/bin/uv
MUTATE := build/mutate
# One process per core with one thread each; the tests of a file run in the same process and share fixtures. Files keep
# their order, slow ones first: by default the files with few tests, the slowest, would come last.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH=$(TORCH): unknown value. Use TORCH=cpu, or leave TORCH out for the default wheel)
endif

.PHONY: install demo test test-slow test-all test-formats test-trackers test-browser test-ray test-extras chaos check fmt docs golden bench gpu-data mutate wheel lock check-supply licenses pin sbom audit fuzz

install: $(STAMP)

# Torch comes first, by version: its wheel differs by platform, so the lock file holds no hash of it.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $(TORCH_OPTIONS_$(TORCH)) torch==$(TORCH_VERSION)
	$(INSTALL) --no-deps --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --editable .
	touch $@

demo: install
	$(BIN)/tag2mask demo --out demo_run

test: install
	$(PYTEST)

test-slow: install
	$(PYTEST) -m slow

test-all: install
	$(PYTEST) -m "(slow or not slow) and not formats and not trackers and not browser and not ray"

# An environment of its own for a dependency group whose versions differ from the lock file or that is large; what it lacks
# comes from .venv.
build/%/installed: pyproject.toml $(UV) $(STAMP)
	$(PYTHON) -m venv --without-pip build/$*
	$(UV) pip install --quiet --python build/$*/bin/python --group $*
	$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir(\"{sysconfig.get_path(\"purelib\")}\")')" \
		> $$(build/$*/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/of_venv.pth
	touch $@

# Reads the exports with the libraries of their formats.
test-formats: install build/formats/installed
	OMP_NUM_THREADS=1 build/formats/bin/python -m pytest -m formats tests/formats

# Logs to Weights & Biases, trackio and MLflow without a network and reads back what they stored.
test-trackers: install build/trackers/installed
	OMP_NUM_THREADS=1 build/trackers/bin/python -m pytest -m trackers tests/trackers

# Labels on a Ray cluster of this machine.
test-ray: install build/ray/installed
	OMP_NUM_THREADS=1 build/ray/bin/python -m pytest -m ray tests/unit/inference tests/unit/io

# The documentation with warnings as errors; all that needs more than the lock file: labeling tools, a browser, trackers,
# Ray; and a few trials of every fault.
test-extras: docs test-formats test-browser test-trackers test-ray
	build/ray/bin/python -m tests.chaos.run --short

# Kills, locks, threads, signals, launches: each often, results in benchmarks/results/chaos.json. Some trials only, or a few
# repetitions of each: make chaos CHAOS="kills threads --short"
chaos: install build/ray/installed
	build/ray/bin/python -m tests.chaos.run --json benchmarks/results/chaos.json $(CHAOS)

# Opens the page of `tag2mask app` in headless Chromium: that of the system, or else Playwright's own.
test-browser: install build/browser/installed
	command -v chromium > /dev/null || command -v chromium-browser > /dev/null || apt-get install -qq -y chromium > /dev/null 2>&1 \
		|| build/browser/bin/python -m playwright install --with-deps chromium
	OMP_NUM_THREADS=1 build/browser/bin/python -m pytest -m browser tests/browser

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

fmt: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/sphinx-build -W --keep-going -b html docs build/docs

# Times each part beside a plain reference; nothing else should use the machine meanwhile.
# Some only, with all numbers to a file: make bench BENCH="par step --json speed.json"
bench: install
	$(BIN)/python benchmarks/run.py $(BENCH)

# Packs VOC-Animals for benchmarks/gpu/run.sh: make gpu-data PACK="--root DIR --mobilenet DIR --efficientnet WHEEL"
gpu-data: install
	$(BIN)/python benchmarks/gpu/pack.py $(PACK)

# Puts errors into source files and sees whether tests fail; hours for all. See docs/mutation.md.
# One file, or a random part of the errors: make mutate FILES="src/tag2mask/functional/cam.py" SAMPLE=40 SEED=1
# AGAIN=1 repeats only what survived the recorded run.
FILES ?= $(addprefix src/tag2mask/,methods functional refiners inference)
mutate: install $(MUTATE)/installed
	$(MUTATE)/bin/python benchmarks/mutation/run.py $(FILES) --sample $(or $(SAMPLE),0) --seed $(or $(SEED),0) \
		$(if $(AGAIN),--again) --python $(BIN)/python

$(MUTATE)/installed: pyproject.toml $(UV)
	$(PYTHON) -m venv $(MUTATE)
	$(UV) pip install --quiet --python $(MUTATE)/bin/python --group mutate
	touch $@

# Are the licenses of the locked packages allowed? Needs no network. After a change of the lock file: make licenses
check-supply: install
	$(BIN)/python -m supply.check

licenses: install
	$(BIN)/python -m supply.check --write

# Pins the weights that recipes name to the hub's present revision.
pin: install
	$(BIN)/python -m supply.pin

# Known vulnerabilities of the locked packages, and the bill of materials of a release (CycloneDX); both need a network.
SUPPLY := build/supply
audit: install $(SUPPLY)/installed
	$(SUPPLY)/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip

sbom: install $(SUPPLY)/installed
	mkdir -p dist
	$(SUPPLY)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
		--spec-version 1.6 --output-file dist/tag2mask.cdx.json $(BIN)/python

$(SUPPLY)/installed: pyproject.toml $(UV)
	$(PYTHON) -m venv $(SUPPLY)
	$(UV) pip install --quiet --python $(SUPPLY)/bin/python --group supply
	touch $@

# Gives broken files and lines to the program and counts those that get one clear line: make fuzz EXAMPLES=3500 SEED=2
fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.bad_inputs --examples $(or $(EXAMPLES),3500) --seed $(or $(SEED),2)

wheel: install
	$(PIP) wheel --no-deps --wheel-dir dist .

# Keeps the versions of requirements.lock where pyproject.toml allows; delete the file first to take the newest.
lock: $(UV)
	echo "torch==$(TORCH_VERSION)" | $(UV) pip compile pyproject.toml - --extra train --extra weights --extra onnx --extra heic --extra app --extra geo --group dev --group docs \
		--universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-annotate \
		--no-emit-package torch --custom-compile-command "make lock" --quiet --output-file requirements.lock

$(UV):
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --disable-pip-version-check --quiet uv==0.13.9

# Compares the working tree with a commit, bit for bit; see benchmarks/golden/README.md.
BASE ?= 96bf254
golden: install
	$(BIN)/python benchmarks/golden/compare.py --base $(BASE)
