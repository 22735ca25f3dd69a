# Neuropil: `make serve` and `make test` work from a fresh clone; they need Python 3.11 or 3.12,
# make and a package index, nothing else.

PYTHON  ?= python3.11
VENV    ?= .venv
HOST    ?= 127.0.0.1
PORT    ?= 8000
STUDIES ?=
CONF    ?=
ARGS    ?=

PY    := $(VENV)/bin/python
LOCK  := $(shell cat requirements/locked.txt | cksum | cut -d' ' -f1)
DEV   := $(shell cat requirements/dev.txt requirements/cluster.txt | cksum | cut -d' ' -f1)
# Stamps carry the lock's checksum: an unchanged lock installs nothing.
STAMP := $(VENV)/.installed-$(LOCK)
TOOLS := $(VENV)/.tools-$(LOCK)-$(DEV)
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install serve demo train tensorboard weights test test-s3 test-viewers fuzz lint format lock clean

help:
	@echo "make serve     serve STUDIES: a folder or a DICOMweb address (without: a demo study)"
	@echo "                 [STUDIES=] [HOST=$(HOST)] [PORT=$(PORT)] [CONF='key value ...']"
	@echo "make demo      a study of synthetic neuropil: [STUDIES=studies/demo] [ARGS='--items 8 ...']"
	@echo "make train     train on a study: STUDIES=DIR [ARGS='--set training.max_epochs=50 ...']"
	@echo "make tensorboard    curves and pictures of the server's runs, http://127.0.0.1:6006"
	@echo "make weights   train the shipped weights anew, hours: [ARGS='--max-steps N ...']"
	@echo "make test      lint, unit and contract tests"
	@echo "make test-s3   chunked volumes in a local object store"
	@echo "make test-viewers   the tests in OHIF and Neuroglancer, and with Slicer's plugin"
	@echo "make fuzz      damaged labels and 20,000 requests, hours: [ARGS='--cases N --seed N']"
	@echo "make lint      ruff, mypy        make format    ruff --fix and format"
	@echo "make install   the locked requirements in $(VENV), nothing more"
	@echo "make lock      compile requirements/*.in again"
	@echo "make clean     remove $(VENV) and everything that tests and runs wrote"
	@echo "Everywhere: [VENV=$(VENV)] [PYTHON=$(PYTHON)]; $(PY) main.py --help for the commands"

$(STAMP):
	@test -x $(PY) || { sh requirements/check_python.sh $(PYTHON) && $(PYTHON) -m venv $(VENV); }
	sh requirements/install.sh $(PY) requirements/locked.txt
	@rm -f $(VENV)/.installed-*; touch $@

$(TOOLS): $(STAMP)
	sh requirements/install.sh $(PY) requirements/dev.txt
	sh requirements/install.sh $(PY) requirements/cluster.txt
	@rm -f $(VENV)/.tools-*; touch $@

install: $(STAMP)

serve: $(STAMP)
	@VENV=$(VENV) HOST=$(HOST) PORT=$(PORT) STUDIES="$(STUDIES)" sh requirements/serve.sh $(CONF)

demo: $(STAMP)
	$(PY) main.py demo --studies $(or $(STUDIES),studies/demo) $(ARGS)

train: $(STAMP)
	@test -n "$(STUDIES)" || { echo "make train STUDIES=dir"; exit 2; }
	$(PY) main.py train --studies $(STUDIES) $(ARGS)

tensorboard: $(STAMP)
	$(VENV)/bin/tensorboard --logdir model/combined --host 127.0.0.1 --port 6006

# The shipped weights from the shared data and synthetic neuropil; restartable, hours on a CPU.
weights: $(STAMP)
	$(PY) benchmarks/make_weights.py $(ARGS)

lint: $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(TOOLS)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The contract tests start real servers, one for each process, so few of them go at once.
test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(CORES) --dist loadfile tests/unit
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile tests/contract

# A local S3 (moto does not resolve beside the lock, so it lives in an environment of its own).
test-s3: $(TOOLS)
	@test -x .venv-moto/bin/moto_server || { $(PYTHON) -m venv .venv-moto && \
		.venv-moto/bin/pip install --quiet 'moto[s3,server]'; }
	MOTO_SERVER=.venv-moto/bin/moto_server $(PY) -m pytest tests/unit/test_volumes_remote.py

test-viewers: $(TOOLS)
	@VENV=$(VENV) sh tests/viewers/run.sh

# Everything the server's schema allows, with ids that exist: 20,000 requests, hours on two
# cores, so not in CI. schemathesis lives in an environment of its own; the app does not need it.
fuzz: $(TOOLS)
	@test -x .venv-fuzz/bin/python || $(PYTHON) -m venv .venv-fuzz
	@.venv-fuzz/bin/pip install --quiet --disable-pip-version-check "schemathesis>=4,<5"
	OMP_NUM_THREADS=1 $(PY) benchmarks/fuzz_labels.py --count 1000
	.venv-fuzz/bin/python benchmarks/fuzz_requests.py --python $(PY) $(ARGS)

# uv lives in an environment of its own; the app does not need it.
lock:
	@test -x .venv-uv/bin/uv || { $(PYTHON) -m venv .venv-uv && .venv-uv/bin/pip install --quiet uv; }
	$(PYTHON) requirements/lock.py .venv-uv/bin/uv

clean:
	rm -rf $(VENV) .venv-uv .venv-moto .venv-viewers runs artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis
