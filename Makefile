# make serve   set up on the first run, then serve the embedded model on 127.0.0.1:8000
# make test    set up on the first run, then lint, import contracts and all tests
# make lint    ruff, mypy and import contracts alone
# make clean   remove the environment and everything that tools left behind

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: serve test lint clean
.DEFAULT_GOAL := serve

serve: $(READY)
	@exec $(BIN)/sparsedial serve $(ARGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
