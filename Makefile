# `make pretrain` and `make test` set themselves up: they need Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch where a package index offers one by that name: only the parity tests use it.
TORCH ?= torch==2.13.0
WORKERS ?= 2
RUN := runs/sample

.PHONY: help pretrain test test-all test-peers lint clean
help:
	@echo 'make pretrain    sample of Wikipedia -> data/sample -> runs/sample -> runs/sample/export; again: resumes'
	@echo 'make test        the tests, in under 10 minutes on 2 cores;  make test-all: the slow ones too'
	@echo 'make test-peers  parity with transformers and torch'
	@echo 'make lint        ruff'

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bert_jax needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[input,sample,plot,test]'
	@touch $@

$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[input,sample,plot,test,peers]'
	@touch $@

data/sample-vocab.txt: | $(VENV)/.installed
	$(BIN)/bert-jax vocabulary --input sample --size 8192 --output $@

pretrain: $(VENV)/.installed data/sample-vocab.txt
	$(BIN)/bert-jax prepare --input sample --vocabulary data/sample-vocab.txt --validation-share 0.1 --output data/sample
	$(BIN)/bert-jax pretrain sample --data data/sample --run-dir $(RUN)
	$(BIN)/bert-jax evaluate $(RUN)
	$(BIN)/bert-jax plot $(RUN)
	$(BIN)/bert-jax export $(RUN)
	$(BIN)/bert-jax fill-mask $(RUN)/export 'he was born in the [MASK] of the 19th century.' \
	  'the city is the [MASK] of the country.' 'in 1945 , the war [MASK] .'

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow and not peers' tests

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not peers' tests

test-peers: $(VENV)/.peers
	$(BIN)/python -m pytest -m peers tests

lint: $(VENV)/.installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) *.egg-info
