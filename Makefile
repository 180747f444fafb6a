# Everything runs in .venv, made on first use with the newest Python that is at least 3.11;
# another one: make test PYTHON=/path/to/python3

SHELL := /bin/sh
BIN := .venv/bin
ARGS ?=
PYTHON ?= $(shell $(newest_python))

# Tried by running it: a name on the PATH may be a shim for a version that is not installed.
newest_python = for name in python3.13 python3.12 python3.11 python3 python; do \
	if $$name -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; \
	then echo $$name; break; fi; done

# The tests start a few hundred processes, which would each compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test soak check generate bench bench-gpu clean
.DELETE_ON_ERROR:

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/installed-demo ## ingest, search and refuse, on an embedded Postgres
	@$(BIN)/samespace demo $(ARGS)

test: check ## everything that a change needs (ARGS="-k name" for a part of it)
	$(BIN)/python -m pytest -m "not soak" --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

soak: .venv/installed-all .bench/installed-peers ## the full figures: races, kills, a million documents (ARGS as for test)
	$(BIN)/python -m pytest -m soak $(ARGS)

bench: .venv/installed-all .bench/installed-peers ## ratios against peers and the clients by hand (ARGS="--store qdrant --rounds 1")
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-gpu: .venv/installed-all ## tokens a second of the local backend on this machine's GPU
	$(BIN)/python -m benchmarks.local.gpu

check: .venv/installed-all ## lint, format, types, import contracts, drift of generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate_sync.py --check
	$(BIN)/python tools/generate_spaces.py --check

generate: .venv/installed-all ## write the sync twins of the async sources, and docs/spaces.md
	$(BIN)/python tools/generate_sync.py
	$(BIN)/python tools/generate_spaces.py

clean: ## remove all that was made here
	rm -rf .venv .bench .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find connectors tests tools examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.bench/installed-peers: pyproject.toml
	@$(PYTHON) tools/install.py peers

.venv/installed-%: pyproject.toml
	@$(if $(PYTHON),,$(error no Python >= 3.11 with venv found; install one, or name it: make PYTHON=/path/to/python3))
	@$(PYTHON) tools/install.py $*
