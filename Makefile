# Thin: each target calls one script or module. The virtual environment is made when it is needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
AXE := .venv/axe/node_modules/axe-core/axe.min.js

.PHONY: help demo up test portable check chaos fuzz bench pictures package

help:
	@echo "make demo     enlarge a photo through the whole system"
	@echo "make up       run the whole system until Ctrl-C"
	@echo "make test     all tests, on real parts"
	@echo "make portable models without torch, and for TensorFlow, in environments of their own"
	@echo "make check    format, lint, types, imports"
	@echo "make chaos    kill and cut off everything for ten minutes; nothing may be lost"
	@echo "make fuzz     20,000 damaged images through the decoders"
	@echo "make bench    every figure, as JSON lines"
	@echo "make pictures the pictures of the documentation (needs Chromium)"
	@echo "make package  serverless.yml to CloudFormation, linted (needs Node)"

demo: $(INSTALLED)
	$(BIN)/python -m infra.demo

up: $(INSTALLED)
	$(BIN)/python -m infra.local

test: $(INSTALLED) $(AXE)
	$(BIN)/python -m pytest

# Each in an environment of its own: without torch, and with TensorFlow's numpy.
portable: $(INSTALLED) .venv-onnx/installed .venv-tensorflow/installed
	$(BIN)/python -m pytest -m portable

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.audit

chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.security.fuzz

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# W3005: a redundant dependency that osls itself writes.
pictures: $(INSTALLED)
	$(BIN)/python -m infra.pictures

package: $(INSTALLED)
	npx --yes osls@4.3.1 package
	$(BIN)/cfn-lint --ignore-checks W3005 -- .serverless/cloudformation-template-update-stack.json

$(INSTALLED): pyproject.toml $(wildcard *requirements*.txt */requirements.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "upres needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt -e ".[community,onnx,tracing]"
	touch $@

# What finds barriers in the page (needs Node; the browser is Debian's chromium).
$(AXE): $(INSTALLED)
	npm install --silent --no-fund --no-audit --prefix .venv/axe axe-core@4.14.1

.venv-onnx/installed: requirements-onnx.txt
.venv-tensorflow/installed: models/requirements-savedmodel.txt
.venv-%/installed:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --disable-pip-version-check -r $<
	touch $@
