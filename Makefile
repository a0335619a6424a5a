# Everything a user or CI starts. `make help` lists it.
PYTHON ?= python3
HOME_DIR ?= $(or $(FOOTPRINT_HOME),.footprint)
PORT ?=
DEMO_MINUTES ?= 2

VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
UV := $(BIN)/uv
export FOOTPRINT_HOME := $(HOME_DIR)

.DEFAULT_GOAL := help
.PHONY: help install gpu run ui serve test check bench format lock clean

help: ## list what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(RUN_STAMP) ## make .venv and install everything from the hashed lock file

gpu: | $(UV) ## the same with TensorFlow for NVIDIA's GPUs and their CUDA, on Linux
	@$(call install,gpu)
	@rm -f $(DEV_STAMP) && touch $(RUN_STAMP)

run: $(RUN_STAMP) ## the whole chain on a generated city, offline: data, training, registry, footprints
	$(BIN)/footprint run --spec configs/quick.yaml --max-minutes $(DEMO_MINUTES)
	$(BIN)/footprint ask

ui: $(RUN_STAMP) ## Dagster UI on :3000 and MLflow UI on :5000, on the state that `make run` left
	$(BIN)/footprint ui

serve: $(RUN_STAMP) ## the service on :8080, with the promoted model
	$(BIN)/footprint serve $(if $(PORT),--port $(PORT))

test: $(DEV_STAMP) ## every test
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

check: $(DEV_STAMP) ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV_STAMP) ## every benchmark, one after the other, on a machine that does nothing else
	@set -e; for name in $$(grep --files-with-matches __main__ benchmarks/*.py | xargs -n1 basename -s .py); do \
		echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

format: $(DEV_STAMP) ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the venv and all state
	rm -rf -- "$(VENV)" "$(HOME_DIR)"

# One environment: `dev` is `run` and the tools for tests. Whoever has `dev` is not set back to `run`.
$(RUN_STAMP): requirements/run.lock pyproject.toml | $(UV)
	@if test -e $(DEV_STAMP); then $(MAKE) $(DEV_STAMP); else $(call install,run); fi
	@touch $@

$(DEV_STAMP): requirements/dev.lock pyproject.toml | $(UV)
	@$(call install,dev)
	@touch $@ $(RUN_STAMP)

# Compiled at once and on all cores, not by whoever first imports it.
define install
echo "Installing requirements/$(1).lock" && \
VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip sync --compile-bytecode --require-hashes requirements/$(1).lock && \
VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
endef

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		( echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1 )
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/installer.lock

# `dev` first: it holds every package, and the others take their versions from it.
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade
lock: | $(UV) ## resolve the lock files anew
	$(COMPILE) pyproject.toml --extra pipeline --extra serve --extra cpu --extra dev -o requirements/dev.lock
	$(COMPILE) pyproject.toml --extra pipeline --extra serve --extra cpu -c requirements/dev.lock -o requirements/run.lock
	$(COMPILE) pyproject.toml --extra serve -c requirements/dev.lock -o requirements/serve.lock
	$(COMPILE) pyproject.toml --extra pipeline --extra serve --extra gpu -c requirements/dev.lock -o requirements/gpu.lock
	echo uv | $(COMPILE) - -o requirements/installer.lock
