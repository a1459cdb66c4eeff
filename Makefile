# Each command first makes or updates .venv when it has to; while nothing changed that costs a fraction of a second.
PYTHON ?= python3
RUN := .venv/bin/python
# A Python that is named (make setup PYTHON=python3.12) is meant: .venv is rebuilt when it has another one.
THIS_PYTHON := $(if $(filter-out file default undefined,$(origin PYTHON)),--this-python)

# One thread a process: two programs with threads for every core slow each other tenfold.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses $$(nproc 2>/dev/null || echo 2) --maxprocesses 4 --dist loadfile

# strict: a link that leads nowhere ends it
DOCS := NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-fast check format docs bench gpu wheels doctor clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  PYTHON=python3.12 after any of them chooses the Python of .venv."

setup: ## make or update .venv with the pinned stack
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no Python called '$(PYTHON)'. Name one that is there: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -m bootstrap setup $(THIS_PYTHON)

demo: setup ## the main job on embedded data: pre-train, transfer three ways, one table (7 to 15 minutes on two cores)
	@$(RUN) tools/run_benchmark.py demo --at-once 2

test: setup ## all tests but the rest of sweeps over all recipes
	@$(PYTEST) -m "not sweep"

test-all: setup ## all tests
	@$(PYTEST)

test-fast: setup ## all tests but those marked slow
	@$(PYTEST) -m "not slow and not sweep"

check: setup ## format, lint, types, imports between folders, the site
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@.venv/bin/lint-imports --no-logo
	@$(DOCS)

docs: setup ## build/site: all pages, the recipes, the reference from docstrings, the reports; opens from disk
	@$(DOCS)
	@echo "build/site/index.html"

format: setup ## format the code and mend what the linter can
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

bench: setup ## speed and memory against timm, transformers, detectron2, mmseg and torch.load (about an hour on two cores)
	@for name in weights_loading vit classification_step mae_step pretraining_steps vitdet vitdet_step upernet slide_inference attention plan_memory; do $(RUN) -W ignore perf/$$name.py || exit 1; done
	@if [ -n "$(PHOTOS)" ]; then $(RUN) -W ignore perf/image_loader.py "$(PHOTOS)" && $(RUN) -W ignore perf/image_loader.py "$(PHOTOS)" --megapixels 12 --most 20; \
		else echo "The loader of images is left out: make bench PHOTOS=FOLDER measures it on the photographs of a folder."; fi

gpu: setup ## what a GPU does, in MINUTES=10: checks, and speed beside the peers, as a table (docs/gpu.md); short without one
	@$(RUN) tools/gpu_kit.py --minutes $(or $(MINUTES),10) --out $(or $(OUT),runs/gpu)

wheels: setup ## wheels/: what a GPU machine without internet lacks (docs/gpu.md)
	@$(RUN) -W ignore -m bootstrap.wheels

doctor: ## versions, devices, what is missing and how to mend it
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no Python called '$(PYTHON)'. Name one that is there: make doctor PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -m bootstrap doctor

clean: ## remove .venv, caches and builds; runs and data stay
	rm -rf .venv build dist wheels *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
