# Everything here needs python3 (3.11 or newer) with venv and pip, and nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SEED ?= 0

.PHONY: test test-matrix lint demo bench dist docs docs-check test-mxnet test-torch clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[test,lint,examples]"
	touch $@

test: $(VENV)/.ready  ## all tests
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25

.tox/.ready: pyproject.toml
	$(PYTHON) -m venv .tox/venv
	.tox/venv/bin/python -m pip install --quiet --disable-pip-version-check "tox>=4.30"
	touch $@

# pyenv's commands are for the versions that are named.
test-matrix: .tox/.ready  ## all tests on the newest Python and jax, and a part on older releases
	PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | sort -rV | paste -sd:)" .tox/venv/bin/tox $(ARGS)

lint: $(VENV)/.ready  ## style, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright
	$(RUN) tests/check_language.py

demo: $(VENV)/.ready  ## train on handwritten digits and draw the curves
	$(RUN) examples/digits.py

test-mxnet: $(VENV)/.ready  ## fresh trajectories from the real MXNet: make test-mxnet SEED=7
	$(RUN) tests/reference/live.py --seed $(SEED)

.torch/.ready: tests/reference/originals.txt
	$(PYTHON) -m venv .torch
	.torch/bin/python -m pip install --quiet --disable-pip-version-check -r tests/reference/originals.txt
	touch $@

test-torch: $(VENV)/.ready .torch/.ready  ## fresh trajectories from the authors' code: make test-torch SEED=7
	.torch/bin/python tests/reference/originals.py --seed $(SEED) --out .torch/fresh
	JAXMXOPT_ORIGINALS=.torch/fresh $(RUN) -m pytest -q tests/test_originals.py

.bench/.ready: pyproject.toml
	$(PYTHON) -m venv .bench/venv
	.bench/venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	touch $@

.mxnet/1.9.1/bin/python:
	$(PYTHON) -m venv .mxnet/1.9.1
	.mxnet/1.9.1/bin/python -m pip install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5

bench: .bench/.ready .mxnet/1.9.1/bin/python  ## against optax, torch and MXNet: make bench ARGS=--quick
	.bench/venv/bin/python -m benchmarks --mxnet .mxnet/1.9.1/bin/python $(ARGS)

.docs/.ready: pyproject.toml
	$(PYTHON) -m venv .docs/venv
	.docs/venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

docs: .docs/.ready  ## the site in docs/_build/html, without warnings, its links checked
	JAX_PLATFORMS=cpu .docs/venv/bin/python -m sphinx -E -a -W --keep-going -q -b html docs docs/_build/html
	JAX_PLATFORMS=cpu .docs/venv/bin/python -m sphinx -W --keep-going -q -b linkcheck docs docs/_build/links

docs-check: docs  ## looks at the site in a browser; needs chromium
	.docs/venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[docs-check]"
	.docs/venv/bin/python docs/check_site.py $(ARGS)

dist:  ## a wheel and an sdist, each tried in an empty environment
	rm -rf build dist
	$(PYTHON) -m venv .dist
	.dist/bin/python -m pip install --quiet --disable-pip-version-check build
	.dist/bin/python -m build --outdir dist .
	.dist/bin/python tests/check_dist.py dist

clean:
	rm -rf $(VENV) .tox .mxnet .torch .bench .docs .dist docs/_build build dist *.egg-info
