# make demo     installs into .venv, starts the suite on http://127.0.0.1:7860, opens the browser
# make test     installs the development packages too, runs every test
# make install  the environment alone        make lint   ruff
# make bench    speed and quality figures    make clean  caches (distclean: .venv too)
#
# PORT=7861 serves the pages on another port (make demo PORT=7861).
# PYTHON=/path/to/python chooses the interpreter (3.11 or newer). The second time nothing is
# installed, so everything works offline.

PYTHON ?=
PORT   ?=
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --no-input

.PHONY: help install dev demo test lint bench clean distclean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^PYTHON=/,$$d'

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

demo: install
	@$(PY) -m genkit app --open $(if $(PORT),--port $(PORT))

test: dev
	@$(PY) -m pytest

lint: dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

bench: dev
	@$(PY) -m benchmarks

clean:
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .gradio
	@find genkit apps tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	@rm -rf $(VENV)

$(VENV)/.made:
	@found=""; for python in $(PYTHON) $(if $(PYTHON),,python3 python3.13 python3.12 python3.11 python3.14 python); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; done; \
	if [ -z "$$found" ]; then \
	    echo "genkit needs Python 3.11 or newer, and none was found; install one or say: make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	if [ ! -w "$$(dirname $(VENV))" ]; then \
	    echo "This folder is read-only and has no $(VENV); copy it, or say: make VENV=/tmp/genkit-venv demo" >&2; exit 1; fi; \
	"$$found" -m venv $(VENV) || { \
	    echo "The environment could not be made with $$found; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.installed: requirements.txt $(VENV)/.made
	@echo "Installing the packages of requirements.txt into $(VENV): a few minutes, once."
	@$(PIP) install -r requirements.txt || { \
	    echo "The packages could not be installed; check the network and say make again." >&2; exit 1; }
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing the packages of requirements-dev.txt into $(VENV), once."
	@$(PIP) install -r requirements-dev.txt || { \
	    echo "The packages could not be installed; check the network and say make again." >&2; exit 1; }
	@touch $@
