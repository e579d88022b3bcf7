PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test lint lab

demo: .venv/installed
	$(BIN)/autom8-lab demo

test: .venv/installed lint
	$(BIN)/python -m pytest --nbval --numprocesses 2 --dist loadfile

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lab: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt jupyterlab
	$(BIN)/jupyter lab notebooks

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,offline-model]'
	touch $@
