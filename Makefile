# make demo   the whole story on this machine, in minutes, into demo/
# make test   all tests, in an environment of their own
# make lint   format, style, types, who imports whom
# make stress thousands of damaged files, kills and races (about an hour)
#
# Needs Python 3.11 or newer with pip; everything else is installed into .venv and .venv-test.

PYTHON ?= python3
VENV ?= .venv
VENV_TEST ?= .venv-test
OUT ?= demo
# One thread per process: the tests and the DFT labels run one process per core.
JOBS ?= 2

PIP = -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
INPUTS = pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test stress lint format docs clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# //p' Makefile | head -4

# --- environments ---------------------------------------------------------------------------
# venv needs ensurepip, which bare Debian keeps in a package of its own; virtualenv does not.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "helmol needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.12 ..." >&2; exit 1; }
	@rm -rf $(1)
	@$(PYTHON) -m venv $(1) 2>/dev/null || { rm -rf $(1); $(PYTHON) -m virtualenv --quiet $(1) 2>/dev/null; } || \
		{ rm -rf $(1) .virtualenv; \
		  $(PYTHON) -m pip --disable-pip-version-check install --quiet --target .virtualenv virtualenv && \
		  PYTHONPATH=.virtualenv $(PYTHON) -m virtualenv --quiet $(1); } || \
		{ echo "cannot make a virtual environment: install python3-venv (apt-get install python3-venv)" >&2; exit 1; }
	@echo "installing into $(1) (torch first, then helmol)"
	@$(1)/bin/python $(PIP) torch
endef

$(VENV)/.installed: $(INPUTS)
	$(call make_venv,$(VENV))
	@$(VENV)/bin/python $(PIP) --editable '.[md]'
	@touch $@

$(VENV_TEST)/.installed: $(INPUTS)
	$(call make_venv,$(VENV_TEST))
	@$(VENV_TEST)/bin/python $(PIP) --editable '.[md,dev]'
	@touch $@

# --- jobs -----------------------------------------------------------------------------------
demo: $(VENV)/.installed
	$(VENV)/bin/helmol demo water --out $(OUT)

test: $(VENV_TEST)/.installed
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 MPLBACKEND=agg \
		$(VENV_TEST)/bin/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

# What `make test` tries some hundred times.
stress: $(VENV_TEST)/.installed
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 MPLBACKEND=agg \
		$(VENV_TEST)/bin/python -m pytest -m faults --stress --timeout 7200 \
		--numprocesses $(JOBS) --dist worksteal $(ARGS)

lint: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/ruff check .
	$(VENV_TEST)/bin/ruff format --check .
	$(VENV_TEST)/bin/mypy
	$(VENV_TEST)/bin/lint-imports
	$(VENV_TEST)/bin/python docs/make_reference.py --check

format: $(VENV_TEST)/.installed
	$(VENV_TEST)/bin/ruff check --fix .
	$(VENV_TEST)/bin/ruff format .

docs: $(VENV)/.installed
	$(VENV)/bin/python docs/make_reference.py

clean:
	rm -rf .venv .venv-test .virtualenv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
