# Each target does the set-up it needs in .venv.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test lint mutants benchmark

.venv/demo-ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --upgrade pip
	$(BIN)/pip install -r requirements.txt
	touch $@

.venv/test-ready: .venv/demo-ready requirements-test.txt requirements-train.txt
	$(BIN)/pip install -r requirements-test.txt
	touch $@

demo: .venv/demo-ready
	$(BIN)/python app.py

test: .venv/test-ready lint
	$(BIN)/python -m pytest

lint: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/mutants-ready: .venv/test-ready
	$(BIN)/pip install "mutmut>=3.8,<4"
	touch $@

mutants: .venv/mutants-ready
	$(BIN)/mutmut run $(if $(MODULE),"musti_model.$(MODULE)*")
	$(BIN)/mutmut results

benchmark: .venv/demo-ready
	$(BIN)/python -m benchmarks.speed
