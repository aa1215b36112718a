# A fresh machine needs `make demo` and `make test`. Each makes .venv and installs what it needs if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CORES ?= all
export PATH := $(CURDIR)/$(BIN):$(PATH)

BENCHMARKS ?= $(filter-out common tables photos synthetic student,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: demo test slurm kills bench lint docs clean

demo: $(INSTALLED)
	$(BIN)/snakemake --cores $(CORES)

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slurm" -n 2 --dist loadfile --no-loadscope-reorder

# On a real Slurm cluster that the tests start on this machine; skipped where they cannot (tests/slurm/cluster.sh install).
slurm: $(INSTALLED)
	$(BIN)/python -m pytest -m slurm

# The suite kills running workflows a few times; this kills 50, in every stage, and takes about half an hour.
kills: $(INSTALLED)
	CUTSEW_KILLS=50 $(BIN)/python -m pytest tests/workflow/test_kills.py

# Tables, and JSON files in benchmarks/results; `make bench BENCHMARKS=startup` runs one. On a machine that does nothing else.
bench: $(INSTALLED)
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python benchmarks/tables.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

docs: $(INSTALLED)
	$(BIN)/python -m cutsew.config.docs

# One pip call under exact pins: without them open_clip_torch pulls a newer torch with gigabytes of CUDA packages.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[workflow,demo,offline,export,openvino,dev]'
	touch $@

clean:
	rm -rf $(VENV) results .snakemake
