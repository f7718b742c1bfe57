# make repro    from a fresh clone to videos, metrics and reports/report.html
# make test     the tests; test-slow: the long ones
# make faults  kills, full disks and damaged files, and what the same command gives then (about an hour)
# make coverage   the fast tests again, with the lines they never run
# make resolve   can every Python version named in pyproject.toml install the pins?
# make mutants  how many small errors in the numeric code the fast tests notice (about an hour)
# make profile P=smoke|demo|paper    choose the parameters; make install builds .venv alone
PYTHON ?= python3
VENV   := .venv
BIN    := $(CURDIR)/$(VENV)/bin
# Sleeping instead of spinning threads: on a busy machine spinning makes small networks several times slower.
export OMP_WAIT_POLICY ?= PASSIVE
# Large pages for the C heap (Linux): 3-7 % less time a training step, the same bits. Other systems ignore it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# Stages are started as `python -m stages.NAME`, so the environment has to come first in PATH.
RUN    := PATH="$(BIN):$$PATH"

.PHONY: install repro test test-slow coverage faults mutants lint resolve profile clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "dicetalk needs Python 3.11 or newer; run: make install PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[pipeline,dev]'
	@# Its own dependencies would replace the headless OpenCV; pyproject.toml has those it needs.
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt face-alignment
	@touch $@

repro: install
	@$(RUN) dvc repro
	@echo "Done. Open reports/report.html; videos are in outputs/generated/, numbers in metrics/evaluate.json."

# What the tests compare with: public implementations, without the packages they ask for, beside the environment.
$(VENV)/.oracles: tests/oracles.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(VENV)/oracles -r tests/oracles.txt
	@touch $@

test: install $(VENV)/.oracles
	@$(RUN) python -m pytest -q

test-slow: install $(VENV)/.oracles
	@$(RUN) python -m pytest -q -m slow $(TESTS)

# Of what runs in the test's own process; workers and commands that tests start are not counted.
coverage: install $(VENV)/.oracles
	@$(RUN) python -m pytest -q --cov --cov-report=term:skip-covered --cov-report=html:.coverage_html
	@echo "Line by line: .coverage_html/index.html"

# Needs root: a full disk is a small file system that is mounted.
faults: install
	@$(RUN) python tests/faults/run.py --table docs/reliability.md

mutants: install $(VENV)/.oracles
	@$(RUN) python tests/mutation/run.py $(MUTANTS)

lint: install
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) lint-imports --no-cache --no-logo

# Every Python version named in pyproject.toml can install what constraints.txt pins; nothing is installed.
resolve: install
	@$(RUN) python .ci/resolve.py

# Refuses to replace a params.yaml that is no profile: those would be edits that exist nowhere else.
profile:
	@test -f profiles/$(P).yaml || { echo "usage: make profile P=NAME with one of:" $(notdir $(basename $(wildcard profiles/*.yaml))); exit 2; }
	@for file in profiles/*.yaml; do cmp -s $$file params.yaml && exit 0; done; \
		echo "params.yaml has edits of your own; keep them first: cp params.yaml profiles/NAME.yaml"; exit 1
	@cp profiles/$(P).yaml params.yaml
	@echo "params.yaml is now profiles/$(P).yaml; run: make repro"

# Removes what `make` and the tools built around it; data, models, runs and reports stay.
clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .coverage .coverage_html build *.egg-info
