# Two commands: `make serve` and `make test`. Each sets up what it needs, once; a second run starts at once.
# Knows the order of the steps. Versions stand in pyproject.toml and web/package.json.
#
#   make serve MODEL=path/or/hub-id ARGS="--port 9000"     PYTHON=python3.12 make serve
#   make test  PYTEST_ARGS="tests/radix"                   TORCH_INDEX_URL=https://... make serve

PYTHON ?= python3
MODEL ?=
ARGS ?=
PYTEST_ARGS ?=
TORCH_INDEX_URL ?=

VENV := .venv
BIN := $(VENV)/bin
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
MADE := $(VENV)/.made-with-$(PYTHON_VERSION)
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
MODULES := web/node_modules/.package-lock.json
CLIENT_MODULES := tests/conformance/node/node_modules/.package-lock.json
UI := web/dist/index.html
KERNELS := kernels/cpu/libbanyan_cpu.made-from
KERNEL_SOURCES := kernels/cpu/build.py $(wildcard kernels/cpu/native/*)
WEB_SOURCES := $(shell find web -type f -not -path '*/node_modules/*' -not -path 'web/dist/*' 2>/dev/null)
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test setup setup-dev ui lint web-test clean tools node-tools

help:
	@echo 'make serve   set up, then serve the bundled model on http://127.0.0.1:8000  (MODEL=, ARGS=)'
	@echo 'make test    set up, then lint and every test  (PYTEST_ARGS=)'
	@echo 'make setup   virtual environment, dependencies and web UI only'
	@echo 'make lint    ruff and mypy'
	@echo 'make clean   remove everything that was made here'

serve: setup
	$(BIN)/banyan serve $(MODEL) $(ARGS)

# Two processes, a file of tests stays within one. Each with one thread of torch: spinning threads of several test processes
# slow each other down by far more than they help.
test: export OMP_NUM_THREADS = 1
test: setup-dev ui
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory web-test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

setup: $(INSTALLED) $(KERNELS) $(UI)
setup-dev: $(INSTALLED_DEV) $(KERNELS) $(CLIENT_MODULES)
ui: $(UI)

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

web-test: $(MODULES)
	cd web && npm run --silent check
	cd web && npm test --silent

clean:
	rm -rf kernels/cpu/libbanyan_cpu.* $(VENV) web/node_modules tests/conformance/node/node_modules web/dist build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- what must be on the machine ------------------------------------------------------------------------------------

tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Banyan needs Python 3.11 or newer; "$(PYTHON)" is $(or $(PYTHON_VERSION),not there).' >&2; \
	  echo 'Install it (Debian, Ubuntu: apt install python3 python3-venv) or name another: PYTHON=python3.12 make serve' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'Python has no venv module. Debian, Ubuntu: apt install python3-venv' >&2; exit 1; }

node-tools:
	@command -v npm >/dev/null || { \
	  echo 'Banyan needs Node.js 20.19 or newer with npm to build its web UI. Debian, Ubuntu: apt install nodejs npm' >&2; exit 1; }
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' \
	  2>/dev/null || { echo "Banyan needs Node.js 20.19 or newer; here is $$(node --version 2>/dev/null || echo none)." >&2; exit 1; }

# ---- set-up; each stamp is newer than what it was made from -----------------------------------------------------------

$(MADE): | tools
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/.made-with-*),--clear) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@touch $@

# Everything that asks for torch is in one call of pip, so that one torch is chosen for all.
$(INSTALLED): pyproject.toml hatch_build.py $(MADE)
	@if [ -z "$(TORCH_INDEX_URL)" ] && ! nvidia-smi >/dev/null 2>&1; then \
	  echo 'No NVIDIA GPU is seen. If pip now fetches a CUDA build of torch (gigabytes), stop it and set TORCH_INDEX_URL'; \
	  echo "to the address of PyTorch's package index for CPU builds (PyTorch's installation page names it)."; fi
	$(PIP_INSTALL) --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml hatch_build.py $(MADE)
	$(PIP_INSTALL) --editable . --group dev
	@touch $(INSTALLED) $@

# The library of CPU kernels; without a compiler there is a warning, and torch's operations do its work.
$(KERNELS): $(KERNEL_SOURCES) $(MADE)
	@$(BIN)/python kernels/cpu/build.py || touch $@

$(MODULES): web/package.json web/package-lock.json | node-tools
	cd web && npm ci --no-audit --no-fund
	@touch $@

# OpenAI's SDK for Node, which the conformance tests drive.
$(CLIENT_MODULES): tests/conformance/node/package.json tests/conformance/node/package-lock.json | node-tools
	cd tests/conformance/node && npm ci --no-audit --no-fund
	@touch $@

$(UI): $(MODULES) $(WEB_SOURCES)
	cd web && npm run build
	@touch $@
