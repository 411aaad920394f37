# `make demo` and `make test` need Python >= 3.11, pip and make; they set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: env env-dev demo test lint format bench clean

env: $(VENV)/test.stamp

env-dev: $(VENV)/dev.stamp

# The stamps make the environment anew exactly when its description has changed.
$(VENV)/%.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, found " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

# The paper's comparison on simulated cells: pretrain, fine-tune on one image, compare.
demo: env
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON="$(CURDIR)/$(BIN)/python" sh launch/demo.sh $(DEMO)

test: env
	$(BIN)/python -m pytest

lint: env-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: env-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: env
	$(BIN)/python launch/bench.py --suite=train

clean:
	rm -rf $(VENV) .cache build *.egg-info runs

# Job scripts on a SLURM cluster of two nodes that starts and ends here; says what it lacks.
.PHONY: test-cluster
test-cluster: env
	$(BIN)/python -m tests.cluster.run
