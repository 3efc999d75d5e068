# make train   sets up .venv and trains, samples and measures a diffusion model of digits (about three minutes on two cores)
# make quick   sets up .venv and runs the tests that are not marked as slow (about three minutes on two cores)
# make test    sets up .venv and runs all tests, and prints which take longest (a quarter of an hour on two cores)
# make check   sets up .venv and runs the linter and the type checker
# make docs    sets up .venv-docs and builds the documentation as a site into site/, with every link checked
# make lock    resolves the version ranges of pyproject.toml again into requirements.lock (needs uv)

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train quick test check docs lock

train: $(READY)
	$(BIN)/python train.py

quick: $(READY)
	$(BIN)/python -m pytest --processes auto -m "not slow"

test: $(READY)
	$(BIN)/python -m pytest --processes auto --durations 25

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The lock holds the exact version and the hashes of everything; --no-deps then adds only inkdrop itself.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("inkdrop requires Python 3.11 or later: make PYTHON=python3.12")'
	@echo "Setting up .venv, once: about 3 GB are downloaded, most of them parts of PyTorch, and take 6 GB on the disk ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@echo "The environment is ready. '. .venv/bin/activate' makes it the one of your shell."
	@touch $@

# The site reads the sources without importing them, so that its own small environment is enough.
docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	@echo "python -m http.server --directory site shows the site, with its search, at localhost:8000."

.venv-docs/.ready: pyproject.toml
	@echo "Setting up .venv-docs, once ..."
	@$(PYTHON) -m venv .venv-docs
	@$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > .venv-docs/requirements.txt
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-docs/requirements.txt
	@touch $@

lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --upgrade -o requirements.lock
