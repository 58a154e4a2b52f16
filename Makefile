# make study (TABLES=first: Table 1 alone; DATASET=motionshapes: one data set; FRESH=1: nothing is read from committed records) · make test · make test-long (also what takes minutes) · make check · make lab · make bench · make gpu · make readme · make site · make test-site · make clean
PYTHON ?= python3
PROFILE ?= quick
DATASET ?= motionshapes,motionshapes-crossed
TABLES ?=
FRESH ?=
BUDGET ?= 25m
CLIPS ?=
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

study: .venv/installed
	$(BIN)/prism-nb study --profile $(PROFILE) --dataset "$(DATASET)" --tables "$(TABLES)" $(if $(FRESH),--fresh) --yes

# Style and types, in seconds.
check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/pyright

test: export PRISM_DEVICE ?= cpu
test: check
	$(BIN)/nbdev_test --n_workers 2 --timing
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests

test-long: export PRISM_DEVICE ?= cpu
test-long: check
	$(BIN)/nbdev_test --n_workers 2 --timing --flags cluster
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --slow tests

lab: .venv/installed hooks
	$(BIN)/jupyter lab nbs

hooks: .venv/installed
	$(BIN)/nbdev_install_hooks
	$(BIN)/pre-commit install

bench: .venv/installed
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/page.py

# On a machine with a GPU; CLIPS=FILE: J-HMDB, as `benchmarks/gpu.py --prepare` writes it. Records: build/gpu.
gpu: .venv/installed
	$(BIN)/python benchmarks/gpu.py --budget $(BUDGET) --out build/gpu --clips "$(CLIPS)"

readme: .venv/installed
	$(BIN)/python docs/pages.py readme

site: .venv/site
	rm -rf build/site build/doctrees
	$(BIN)/python docs/pages.py
	$(BIN)/sphinx-build -b html -W -n --keep-going -q -c docs -d build/doctrees build/pages build/site
	@echo 'The site: build/site/index.html'

# A picture of every page, at both widths, is left in build/screens, except in CI.
test-site: site
	rm -rf build/screens
	$(BIN)/python -m pytest -q -n 2 tests/site

# Everything the project needs, in a folder of its own.
.venv/installed: settings.ini setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; say which with: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.venv/site: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[site]'
	touch $@

clean:
	rm -rf .venv build *.egg-info data/motionshapes* data/cache data/checkpoints data/locks data/machine data/results reports/smoke

.PHONY: study check test test-long lab hooks bench gpu readme site test-site clean
