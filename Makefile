# Each target does the set-up it needs: the demo's packages in .venv, the tests' in .venv-test, so that no test changes what the demo runs on.
PYTHON ?= python3
DEMO = .venv
TEST = .venv-test
# Processes that share the tests, a file at a time: one for each of two cores (three took longer). Each loads the page and the weights for
# itself (up to 3 GB).
WORKERS ?= 2
# Of the packages only what is loaded is compiled (--no-compile below), by the first process that does; where it may not be kept, each of
# the tests' many processes would compile it again, for 20 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint mutants benchmark

$(DEMO)/ready: requirements.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --upgrade pip
	$(DEMO)/bin/pip install -r requirements.txt
	touch $@

$(TEST)/ready: requirements.txt requirements-train.txt requirements-test.txt
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --upgrade pip
	$(TEST)/bin/pip install --no-compile -r requirements-test.txt
	touch $@

demo: $(DEMO)/ready
	$(DEMO)/bin/python app.py

test: $(TEST)/ready lint
	$(TEST)/bin/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

lint: $(TEST)/ready
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

$(TEST)/mutants-ready: $(TEST)/ready
	$(TEST)/bin/pip install "mutmut>=3.8,<4"
	touch $@

mutants: $(TEST)/mutants-ready
	$(TEST)/bin/mutmut run $(if $(MODULE),"musti_model.$(MODULE)*")
	$(TEST)/bin/mutmut results

benchmark: $(DEMO)/ready
	$(DEMO)/bin/python -m benchmarks.speed
