# `make demo` and `make test` need Python >= 3.11, pip and make; they set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: env env-dev demo benchmark test fuzz kill lint format bench bench-gpu clean

env: $(VENV)/test.stamp

env-dev: $(VENV)/dev.stamp

# The stamps make the environment anew exactly when its description has changed. One that was cut
# while it was made (`unfinished`), or has lost its pip, is begun again.
$(VENV)/%.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, found " + sys.version)'
	test ! -e $(VENV)/unfinished && $(BIN)/python -m pip --version >/dev/null 2>&1 || \
		$(PYTHON) -m venv --clear $(VENV)
	touch $(VENV)/unfinished
	$(BIN)/python -m pip install --quiet --upgrade pip && \
		$(BIN)/python -m pip install --quiet --editable '.[$*]' || { rm $(VENV)/unfinished; exit 1; }
	rm $(VENV)/unfinished
	touch $@

# The paper's comparison on simulated cells: pretrain, fine-tune on one image, compare.
demo: env
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON="$(CURDIR)/$(BIN)/python" sh launch/demo.sh $(DEMO)

# Real cells, every field annotated once (docs/benchmark.md): days on two cores; goes on where it was.
benchmark: env
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON="$(CURDIR)/$(BIN)/python" sh launch/benchmark.sh runs/benchmark

# By hand: damaged files (a table, and every outcome that is wrong), and commands killed.
N ?= 10000
TIMES ?= 20

fuzz: env
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.fuzz.trial $(N)

kill: env
	$(BIN)/python -m tests.reliability.kill $(TIMES)

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

# The accelerator of this machine in nine minutes, without a network; PyTorch beside it where it is there.
bench-gpu: env
	$(BIN)/python launch/bench.py --suite=gpu --peer --json=runs/bench-gpu.json

clean:
	rm -rf $(VENV) .cache build *.egg-info runs

# Job scripts on a SLURM cluster of two nodes that starts and ends here; says what it lacks.
.PHONY: test-cluster
test-cluster: env
	$(BIN)/python -m tests.cluster.run

# The documentation as a site, build/site; warnings are errors, links and anchors are checked.
.PHONY: docs check-docs
docs: $(VENV)/docs.stamp
	$(BIN)/python docs/build.py
	$(BIN)/zensical build --clean --strict

# The commands of the README, as written but for the size of the training, and the notebook at its smallest.
check-docs: $(VENV)/docs.stamp
	$(BIN)/python -m tests.docs.run

# The oldest versions that pyproject.toml allows, on the tests of what those packages are used for. Old
# packages beside new ones warn of each other: deprecations are no errors here.
OLDEST := .cache/oldest
OLDEST_TESTS := tests/files_test.py tests/locks_test.py tests/metrics_test.py tests/tabular_test.py \
	tests/task_test.py tests/compiled_test.py tests/data tests/instances tests/outputs tests/configs \
	tests/ingest tests/simulate tests/models/weights_test.py tests/training/writers_test.py \
	tests/training/progress_test.py tests/report/statistics_test.py tests/report/figures_test.py \
	tests/report/page_test.py tests/launch/configuration_test.py tests/launch/fetch_test.py \
	tests/inference/labelling_test.py tests/inference/tiling_test.py tests/inference/sources_test.py \
	tests/models/unet_test.py tests/models/port_test.py tests/training/losses_test.py \
	tests/training/step_test.py tests/training/checkpoint_test.py tests/study/settings_test.py \
	tests/export/pretrained_test.py
# Held against the watershed of scikit-image, which breaks some ties otherwise in 0.24 (ours is compiled
# and our own), and against the bootstrap of scipy, which takes no rng before 1.15.
OLDEST_LEFT := -k 'not (those_of_the_definition or double_threshold_of_the_papers_code or agrees_with_scipy)'
.PHONY: test-oldest
test-oldest:
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --resolution lowest-direct \
		--editable . 'pytest>=8' 'hypothesis>=6.100' 'ome-zarr-models>=1.7' 'shapely>=2.1'
	JAX_PLATFORMS=cpu $(OLDEST)/bin/python -m pytest -W ignore::DeprecationWarning \
		-W ignore::FutureWarning $(OLDEST_LEFT) $(OLDEST_TESTS)
