# make demo    everything from nothing to a report, on real videos made on the spot
# make test    linters, types, and the tests of every package
# make bench   the ratios that the documentation claims
# make clean   remove what the others made

PYTHON ?= $(shell command -v python3.11 || command -v python3)
DISTS  := tag_core tag_plugins_video tag_plugins_reid tag_plugins_face plugins/tag_plugins_search
BIN    := .venv/bin
READY  := .venv/.ready
FILES  ?=

.PHONY: demo test lint bench wheels clean

demo: $(READY)
	@$(BIN)/python demo/demo.py $(FILES)

test: $(READY) lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --timeout 900

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

wheels: $(READY)
	rm -rf dist
	@for dist in $(DISTS); do $(BIN)/python -m build -q --wheel --no-isolation --outdir dist $$dist || exit 1; done
	@ls dist

# --no-deps: the local packages must never be looked for on a public index.
$(READY): requirements.txt constraints.txt $(DISTS:%=%/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation $(DISTS:%=-e %)
	@touch $@

clean:
	rm -rf .venv .demo dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
