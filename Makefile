# Every target sets up what it needs: a virtual environment in .venv, pinned by constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRESET ?= cpu

.PHONY: help table1 test lowest soak bench kernels interop lint docs dist installed clean

help:
	@echo "make table1 [PRESET=quick|cpu|pairs]   the table and the figure (cpu: five to fifteen minutes on two cores; it says first)"
	@echo "make test                              the test suite"
	@echo "make lowest                            the test suite with the oldest versions that pyproject.toml admits"
	@echo "make soak                              its long versions"
	@echo "make bench                             the benchmarks, with their goals"
	@echo "make kernels                           compile the kernels, which the first run otherwise does"
	@echo "make docs                              the documentation as a site, in build/site; a broken link or reference fails"
	@echo "make dist                              the wheel and the source archive, in dist/"
	@echo "make installed                         the wheel in an empty environment, away from the repository: 50 steps of quick"
	@echo "make interop                           the tests with diffusers and transformers, in an environment of their own"
	@echo "make lint                              ruff and mypy"

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "lo_theory needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	@touch $@

table1: $(VENV)/ready
	$(BIN)/lo-theory run experiments/table1.yaml --preset $(PRESET)

# The kernels first: both processes of the tests would compile them, and slow cells of a sweep are not short ones.
test: kernels
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not soak' --ignore=tests/bench $(ARGS)

$(VENV)-lowest/ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[test]'
	@touch $@

lowest: $(VENV)-lowest/ready
	$(VENV)-lowest/bin/python -m pytest -n 2 --dist worksteal -m 'not soak' --ignore=tests/bench $(ARGS)

$(VENV)-interop/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-interop
	$(VENV)-interop/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test,interop]'
	@touch $@

interop: $(VENV)-interop/ready
	$(VENV)-interop/bin/python -m pytest tests/interop -rs $(ARGS)

soak: $(VENV)/ready
	$(BIN)/python -m pytest -m soak --ignore=tests/bench $(ARGS)

bench: $(VENV)/ready
	$(BIN)/python -m pytest tests/bench --benchmark-only $(ARGS)

kernels: $(VENV)/ready
	$(BIN)/lo-theory compile

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy lo_theory

$(VENV)/docs: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

# Notebooks are executed on the way: EXECUTE_NOTEBOOKS=false shows them without what they print.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: $(VENV)/ready
	rm -rf dist
	$(BIN)/python -m hatchling build --directory dist

installed: dist
	rm -rf build/installed
	$(PYTHON) -m venv build/installed
	build/installed/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/installed && bin/lo-theory run table1 --preset quick --quiet --set training.steps=50

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist
