# `make demo` and `make test` work on a fresh machine with Python 3.11 or newer, pip and make.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
# Each process of the tests has a Spark and a Ray of its own: about 6 GiB. Files come in the order of their names, the
# longest first; ordered by the number of tests, which is the default, they would come last.
PROCESSES ?= 2
BIN := $(VENV)/bin
# Threads that wait for each other sleep: spinning, as is OpenMP's way, they would take the cores from the other process.
# Modules are compiled once, whatever the machine's own setting: the tests start some hundred Pythons.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(PROCESSES) \
	--dist loadfile --no-loadscope-reorder

.PHONY: bench demo test slow gpu-check lint format reference java-classes clean

demo: $(VENV)/installed
	$(BIN)/hisam demo $(DEMO)

test: lint
	$(PYTEST) -m "not slow and not gpu"

slow: $(VENV)/installed-dev
	$(PYTEST) -m "slow and not gpu"

gpu-check: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.gpu_check

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.extract_throughput
	$(if $(TEXT_MODEL),$(BIN)/python -m benchmarks.encode_throughput --text-model $(TEXT_MODEL),@echo "encode wants a model: make bench TEXT_MODEL=FOLDER")
	$(BIN)/python -m benchmarks.tokenize_throughput

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/installed-dev
	$(BIN)/python -m docs.reference

# Once an installation: a minute, some 190 MB, and every command that starts Spark begins some ten seconds sooner.
java-classes: $(VENV)/installed
	$(BIN)/python -m pipeline.demo.archive_classes

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	$(BIN)/python -m pipeline.on_spark.java >/dev/null 2>&1 || $(BIN)/pip install --quiet --editable '.[java]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
