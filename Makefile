# make demo   the whole platform with real DICOM, on a machine with nothing set up (EXIT=1 stops it at the end,
#             SERVICES=1 uses real servers, RUNNER=kubernetes a cluster that it starts)
# make test   all tests, and what was skipped for want of what (ARGS="..." for pytest)
# make services   real servers for tests and development, all that this machine can (ONLY="name=port ...")
# make services-down   end them
# make cluster   a Kubernetes of one node for development (root, Linux), about 400 MB
# make cluster-down   end it
# make services-build   make them ready to start
# make lint   style and types
# make lock   the locked versions with their hashes (ARGUMENTS="--upgrade-package pydicom")
# make licences   THIRD_PARTY.md, the licences of all that is shipped
# make clean  what this file made (never a folder of data)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo test lint clean setup lock licences services services-build services-down cluster cluster-down

VENV := .venv
READY := $(VENV)/.ready
# Without compiled bytecode every start of Python, and so every run, costs twice.
unexport PYTHONDONTWRITEBYTECODE

help:
	@sed -n 's/^# //p' Makefile

demo: $(READY)
	@$(if $(SERVICES),PYTHONPATH=tests REQUIRE_SERVICES=1 $(VENV)/bin/python -m services up)
	if [ "$(RUNNER)" = kubernetes ]; then
	    PYTHONPATH=tests REQUIRE_SERVICES=1 $(VENV)/bin/python -m services up kubernetes
	    PYTHONPATH=tests $(VENV)/bin/python -m services.flow_jobs
	    set -a; source "$${KAAPANA_SERVICES_HOME:-.services}/flow-jobs.env"; set +a
	fi
	$(VENV)/bin/python -m kaapana_assets demo $(if $(EXIT),--exit) $(if $(SERVICES),--services)

test: $(READY)
	@$(VENV)/bin/python .ci/test_parts.py $(ARGS)

services: $(READY)
	@PYTHONPATH=tests $(VENV)/bin/python -m services up $(ONLY)

services-build: $(READY)
	@PYTHONPATH=tests $(VENV)/bin/python -m services build $(ONLY)

services-down: $(READY)
	@PYTHONPATH=tests $(VENV)/bin/python -m services down $(ONLY)

cluster: $(READY)
	@PYTHONPATH=tests $(VENV)/bin/python -m services up kubernetes

cluster-down: $(READY)
	@PYTHONPATH=tests $(VENV)/bin/python -m services down kubernetes

lint: $(READY)
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

lock: $(READY)
	@bash .ci/lock $(VENV) $(ARGUMENTS)

licences: $(READY)
	@bash -c 'source .ci/pip_settings; venv=$(VENV); hand_pip_configuration_to_uv; exec $(VENV)/bin/python .ci/third_party.py'

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -not -path './kaapana-home*' -prune -exec rm -rf {} +

setup: $(READY)

$(READY): pyproject.toml constraints.txt .ci/setup .ci/pip_settings
	@bash .ci/setup $(VENV)
	touch $(READY)
