# One word per habit: install, demo, check, test, bench, format, clean.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo check test bench study-quick format clean

install: $(STAMP)

# torch first and pinned: its CPU build is taken where a wheel is at hand, and the extras then find
# it installed instead of pulling the CUDA build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Mull needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[torch,math,report,dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/mull run recipes/demo.toml --out demo-run
	$(BIN)/mull report demo-run

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/house_rules.py

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

bench: install
	$(BIN)/mull bench

# A small version of the study of search, verification and revision (docs/study.md).
study-quick: install
	$(BIN)/mull run recipes/study/quick.toml --out build/study/quick
	$(BIN)/python recipes/study.py rows build/study/quick --into build/study/rows
	$(BIN)/python recipes/study.py tables --rows build/study/rows \
		--page build/study/quick.md --plot build/study/quick.svg

format: install
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) demo-run build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
