# `make run` shows a whole cluster at work, `make test` checks everything, `make bench` measures. Each does all the
# set-up first.

PYTHON ?= /usr/bin/python3
VENV := .venv
READY := $(VENV)/ready
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=CI)

.PHONY: run test lint bench setup clean

run: $(READY)
	@$(SUDO) $(VENV)/bin/pvcd sandbox up --directory var/run --tour --temporary

test: lint
	$(SUDO) $(VENV)/bin/python -m tests.run $(RUN_OPTIONS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/sphinx-build -W --keep-going -n -q -b html docs build/docs

bench: $(READY)
	$(SUDO) $(VENV)/bin/python -m bench

setup: $(READY)

$(READY): debian-packages requirements.lock setup.cfg pyproject.toml
	tools/install-debian-packages
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:
	$(SUDO) rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
