# Two commands for a fresh machine that has python3 and make: `make demo` and `make test`.
# Each sets up what it needs in .venv (about two to five minutes the first time, a few seconds later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
IMAGES ?=
DATA ?= data
RUNS ?= runs/claims
ONLY ?=
SEEDS ?=
SETUP := pyproject.toml hatch_build.py $(wildcard gmml_aug/backends/cpu/core/*.[ch]) gmml_aug/backends/cpu/build.py

.PHONY: demo gallery docs test notebooks lint types tests aug slow oldest packages dist pure bench claims clean

demo: $(VENV)/.demo  ## corrupt photographs with the paper's recipe (demo.png), restore them (restored.png); IMAGES=folder takes your own
	$(BIN)/gmml corrupt --demo $(IMAGES) -o demo.png
	$(BIN)/gmml reconstruct $(IMAGES) --weights gmml_vit_micro_patch8_64.openclipart -o restored.png

test: lint types tests  ## everything that CI runs

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

tests: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

aug: $(VENV)/.test  ## the tests of the corruption library alone
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal tests/aug

slow: $(VENV)/.test  ## what is run by hand before a release
	$(BIN)/python -m pytest -m slow

oldest: $(VENV)/.test  ## the corruption library on the oldest torch that pyproject.toml allows; asks the package index
	$(BIN)/python -m pytest -m "slow and network" tests/test_oldest_torch.py

packages: $(VENV)/.test  ## wheels and sdists by each compiler and by none, installed into empty environments
	$(BIN)/python -m pytest -m slow tests/test_packages.py

dist: $(BIN)/python  ## a wheel for this machine and an sdist, into dist/
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build

pure: $(BIN)/python  ## a wheel without the compiled core, for every machine, and an sdist, into dist/
	$(BIN)/python -m pip install --quiet build
	GMML_PURE=1 $(BIN)/python -m build

bench: $(VENV)/.demo  ## quick figures on this machine's CPU, as JSON in benchmarks/results/here.json; benchmarks.throughput has everything
	$(BIN)/gmml bench -o benchmarks/results/here.json

claims: $(VENV)/.test  ## measure the papers' claims again: docs/reproducing.md; DATA=folder of the packs, ONLY=row, SEEDS, RUNS=folder
	$(BIN)/python -m benchmarks.claims --data "$(DATA)" --runs "$(RUNS)" $(if $(ONLY),--only $(foreach row,$(ONLY),'$(row)')) $(if $(SEEDS),--seeds $(SEEDS))

gallery: $(VENV)/.demo  ## draw docs/gallery.md and its pictures anew
	$(BIN)/python -m benchmarks.gallery

notebooks: $(VENV)/.test  ## run docs/notebooks and write their outputs into them; the bench needs the extra bench
	$(BIN)/python -m benchmarks.notebooks

docs: $(VENV)/.test  ## build the pages into site/, strictly, and check every link; open site/index.html
	$(BIN)/python -m benchmarks.site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(BIN)/python $(SETUP)
	$(BIN)/python -m pip install --quiet -e ".[demo]"
	touch $@

$(VENV)/.test: $(BIN)/python $(SETUP)
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet -e ".[demo,train]" --group test
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis demo.png restored.png site .cache
