PYTHON ?= python3
SHARE ?= 1
SEED ?= 0
# Prism, Beam's portable runner: the program, or a folder with one for each kind of machine. If empty, Beam fetches it.
PRISM ?= $(wildcard ../shared/prism)
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTABLE := .venv/.testable
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help install demo test test-cluster fuzz lint clean

help:
	@echo "make demo     turn photographs into shards, train for a minute, render an 8192x768 panorama, in demo/"
	@echo "make test     run the whole test suite, on all cores"
	@echo "make test-cluster  run jobs on a small cluster on this machine and compare their bytes (PRISM= names the runner)"
	@echo "make fuzz     test everything that reads outside bytes with 100,000 seeded inputs (SHARE= of them, SEED=)"
	@echo "make lint     check style and types"
	@echo "make install  create the environment in .venv; the other targets install what they need on top"
	@echo "make clean    remove everything that these targets created"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@rm -rf demo
	@echo; echo "1. Ingest: the photographs in samples/ become training shards."
	$(BIN)/infinitygan ingest samples/*.jpg --out demo/shards
	@echo; echo "2. Train: one minute on those shards, starting from the bundled checkpoint; then a strip of the result."
	$(BIN)/infinitygan train --data demo/shards --out demo/run --preset small --init bundled --minutes 1
	$(BIN)/infinitygan render --checkpoint demo/run/checkpoint.safetensors --width 1024 --height 256 --out demo/strip
	@echo; echo "3. Render: a panorama with the bundled checkpoint, at four times its resolution, through Beam."
	$(BIN)/infinitygan render --scale 4 --width 8192 --height 768 --format png --format tif --out demo/panorama
	@echo; echo "Look at these:"; ls demo/run/*.png demo/strip/panoramas/*.png demo/panorama/panoramas/*

test: $(TESTABLE)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-cluster: $(TESTABLE)
	PRISM=$(PRISM) $(BIN)/python -m pytest -rs --numprocesses auto --dist loadfile tests/cluster

fuzz: $(TESTABLE)
	$(BIN)/python tests/fuzz/driver.py --share $(SHARE) --seed $(SEED)

lint: $(TESTABLE)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/python -m codespell_lib

clean:
	rm -rf .venv demo fuzz-failures build dist *.egg-info
