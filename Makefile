# make demo: install, train LeNet on the digits in the package, measure it, predict a few images
# make test: install what the tests need, and run them

PYTHON ?= python3
BIN ?= .venv/bin
RUNS ?= runs
INSTALLED ?= .venv/installed
TESTS_INSTALLED ?= .venv/installed-dev
PIP = $(BIN)/python -m pip install --disable-pip-version-check --quiet

.PHONY: demo test

demo: $(INSTALLED)
	$(BIN)/cnnkit train lenet --epochs 30 --output $(RUNS)
	@run=$$(ls -td $(RUNS)/lenet-digits-* | head -n 1); set -ex; \
	$(BIN)/cnnkit evaluate $$run; \
	$(BIN)/cnnkit predict $$run examples/digits/*.png; \
	{ set +x; } 2>/dev/null; \
	echo; \
	echo "run folder    $$run (config.toml, metrics.jsonl, log.txt, last.ckpt)"; \
	echo "best weights  $$run/best"; \
	echo "next          $(BIN)/cnnkit --help"

test: $(TESTS_INSTALLED)
	$(BIN)/python -m pytest -n 2

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -c constraints.txt -e .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -c constraints.txt -e ".[dev]"
	touch $@ .venv/installed
