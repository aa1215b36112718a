# A fresh machine needs `make demo` and `make test`. Each makes .venv and installs what it needs if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CORES ?= all
export PATH := $(CURDIR)/$(BIN):$(PATH)

BENCHMARKS ?= $(filter-out common tables images synthetic baseline small_vit review,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: demo install test gpu slurm kills lint coverage generate docs trouble fuzz lock audit dist clean

demo: $(INSTALLED)
	$(BIN)/snakemake --cores $(CORES)

install: $(INSTALLED)

# Three processes keep two cores busy: tests of the workflow wait for snakemake now and then.
test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slurm" -n 3 --dist loadfile --no-loadscope-reorder

# The checks that `make test` runs on a fake device, on a real GPU; skipped where torch can use none.
gpu: $(INSTALLED)
	$(BIN)/python -m pytest tests/gpu -m gpu -rs

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
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint
	$(BIN)/codespell

# The unit tests, and which lines of the package they run; the jobs that the workflow starts are not counted.
coverage: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check pytest-cov==7.1.0 coverage==7.17.5
	$(BIN)/python -m pytest tests/unit -n 2 --dist loadfile --no-loadscope-reorder --cov cutsew --cov-report term

# Everything written from the code: the schema, config/default.yaml and the reference pages of settings and commands.
generate: $(INSTALLED)
	$(BIN)/python -m cutsew.pipeline.config_docs
	$(BIN)/python tools/cli_page.py

# The documentation as a site, in site/; strict, so a broken link fails. Needs only docs/requirements.txt.
docs: $(VENV)/docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --quiet
	@echo "site/index.html"

$(VENV)/docs/.installed: docs/requirements.txt
	$(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	touch $@

# One pip call under exact pins: without them open_clip_torch pulls a newer torch with gigabytes of CUDA packages.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[workflow,cluster,demo,offline,hub,export,openvino,heic,http,dev]'
	touch $@

clean:
	rm -rf $(VENV) results .snakemake

# Bad, odd and hostile inputs, each with what became of it, as a table; the suite runs them too.
trouble: $(INSTALLED)
	cd tests && PYTHONPATH=.:support ../$(BIN)/python -m trouble

# Each parser is fed damaged files for so many minutes; failing ones are kept in .fuzz and tried first the next time.
MINUTES ?= 3
fuzz: $(INSTALLED)
	cd tests && PYTHONPATH=.:support ../$(BIN)/python -W ignore -m trouble.fuzz --minutes $(MINUTES)

# The digests of all pinned packages' files on PyPI; needs the network.
lock:
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet uv
	$(VENV)/lock/bin/uv pip compile constraints.txt --no-deps --generate-hashes --no-emit-package torch \
	  --python-version 3.11 --no-annotate --no-header -q -o requirements.lock.new
	(sed -n '/^#/p' requirements.lock; cat requirements.lock.new) > requirements.lock.whole
	mv requirements.lock.whole requirements.lock && rm requirements.lock.new

# Known vulnerabilities of what is installed, as PyPI's advisories tell them; needs the network.
audit: $(INSTALLED)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --disable-pip --no-deps -r constraints.txt

# An sdist and a wheel of the last commit: the same bytes wherever and whenever they are made of it.
dist:
	$(PYTHON) -m venv $(VENV)/dist
	$(VENV)/dist/bin/pip install --quiet build
	$(VENV)/dist/bin/python tools/dist.py
