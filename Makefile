# Everything here needs python3 (3.11 or newer) with venv and pip, and nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SEED ?= 0

.PHONY: test lint demo bench docs test-mxnet clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[test,lint,examples]"
	touch $@

test: $(VENV)/.ready  ## all tests
	$(RUN) -m pytest -n 2 --dist loadfile

lint: $(VENV)/.ready  ## style, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

demo: $(VENV)/.ready  ## train on handwritten digits and draw the curves
	$(RUN) examples/digits.py

test-mxnet: $(VENV)/.ready  ## fresh trajectories from the real MXNet: make test-mxnet SEED=7
	$(RUN) tests/reference/live.py --seed $(SEED)

clean:
	rm -rf $(VENV) .mxnet .bench build dist *.egg-info
