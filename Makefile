# One line each. PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-full test test-slow torture check table parity bench clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv && $(BIN)/pip install -q -c constraints.txt -e . && touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]' && touch $@

.venv/installed-peers: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[peers]' && touch $@

demo demo-full: export OMP_NUM_THREADS ?= 1  # a network this small is fastest on one thread, with the loader on the other core

demo: .venv/installed  ## the whole main job on built-in clips, and a report to open
	$(BIN)/python examples/demo.py --out demo

demo-full: .venv/installed  ## the same with three pre-trainings
	$(BIN)/python examples/demo.py --out demo-full --pretrainings 3

test test-slow check: export OMP_NUM_THREADS ?= 1  # their networks are tiny: a second thread costs more than it brings
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile  # files of tests side by side: what a file's tests share is made once

test: .venv/installed-dev  ## all tests but the slow ones
	$(PYTEST)

test-slow: .venv/installed-dev  ## the slow ones
	$(BIN)/python -m pytest -m slow

torture: export OMP_NUM_THREADS ?= 1
torture: .venv/installed-dev  ## thousands of damaged files and 200 kills, then docs/reliability.md
	$(BIN)/python tests/faults/torture.py mutants && $(BIN)/python tests/faults/torture.py kills && $(BIN)/python tests/faults/torture.py page

check: .venv/installed-dev  ## style, types and coverage
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/pyright && $(PYTEST) --cov --cov-fail-under=90

table: .venv/installed  ## the table of systems in the README; those of docs/ from what was measured
	$(BIN)/python docs/table.py && $(BIN)/python docs/measured.py

parity: .venv/installed-dev  ## docs/parity.md: how far every number is from the references'
	$(BIN)/python docs/parity.py

bench: export OMP_NUM_THREADS ?= 1
bench: .venv/installed-peers  ## speed next to other packages, hours long, then docs/performance.md: make bench BENCH='--only search'
	$(BIN)/python benchmarks/bench.py $(BENCH)

.PHONY: docs lowest wheel-test

docs: .venv/installed  ## the documentation site, in build/site/index.html; a warning is an error
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]' && $(BIN)/python docs/site/build.py

lowest:  ## the default suite with the lowest declared versions, on the lowest Python: make lowest PYTHON=python3.11
	$(PYTHON) tests/release/environment.py --lowest

wheel-test: .venv/installed  ## build, look into sdist and wheel, and do the main job with the wheel alone
	$(BIN)/pip install -q -c constraints.txt -e '.[release]' && $(BIN)/python tests/release/distribution.py --python $(PYTHON)

clean:
	rm -rf .venv build dist
