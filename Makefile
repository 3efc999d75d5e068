# make train   sets up .venv and trains, samples and measures a diffusion model of digits (about two minutes)
# make test    sets up .venv and runs the tests
# make check   sets up .venv and runs the linter and the type checker
# make lock    resolves the version ranges of pyproject.toml again into requirements.lock (needs uv)

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test check lock

train: $(READY)
	$(BIN)/python train.py

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The lock holds the exact version and the hashes of everything; --no-deps then adds only inkdrop itself.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("inkdrop needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --upgrade -o requirements.lock
