# Two commands are all that a newcomer needs: `make demo` and `make test`. Each makes its own .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet install --constraint constraints.txt

.PHONY: demo test format check types lowest lowest-pins unit docs soak machine fuzz mutants bench clean help

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: .venv/.demo ## submit and follow tasks on a local emulator, a picture and a sound too; no key, no network
	@$(BIN)/distribute-async demo

test: check types lowest unit docs ## everything that CI runs: format, lint, types, tests, documentation

format: .venv/.dev ## rewrite the code the way `make check` wants it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: .venv/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: .venv/.dev
	$(BIN)/mypy
	$(BIN)/pyright

docs: .venv/.dev ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build -q -n -W --keep-going docs docs/_build/html

unit: .venv/.dev
	@sh tests/integrations/install-browser.sh
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal --cov --cov-report=term

# A slice of the tests, of all that meets a library of others', with the lowest versions that pyproject.toml allows. The
# options are for pytest 8.3, which doesn't know all settings there.
LOWEST := tests/wire tests/api/test_settings.py tests/api/test_watch.py \
	tests/api/test_client.py tests/api/test_submit.py tests/cli/test_submit.py tests/cli/test_terminal.py \
	tests/cli/test_wait.py tests/integrations/test_streams.py tests/integrations/test_problems.py \
	tests/integrations/test_sse.py tests/telemetry/test_opentelemetry.py tests/testing/test_fixtures.py

lowest: .venv-lowest/.made ## a slice of the tests with the lowest versions of all dependencies
	.venv-lowest/bin/pytest --quiet --numprocesses auto --maxprocesses 4 --dist worksteal \
		--override-ini 'addopts=-ra --strict-markers' -W ignore::pytest.PytestConfigWarning \
		-p no:cacheprovider -k 'not five_hundred' $(LOWEST)

lowest-pins: .venv/.dev ## write constraints-lowest.txt anew, after a change of what pyproject.toml asks for
	$(PIP) uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --resolution lowest-direct --all-extras \
		--group lowest --no-annotate --custom-compile-command 'make lowest-pins' --upgrade \
		--output-file constraints-lowest.txt pyproject.toml

# The long suites; shorter slices of each run in `make test`.

soak: .venv/.dev ## ten minutes of thousands of waits through faults, outages and cancellations
	$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),600)

machine: .venv/.dev ## 20,000 random runs of the state machine
	DISTRIBUTE_EXAMPLES=$(or $(EXAMPLES),20000) $(BIN)/pytest --timeout 0 --override-ini faulthandler_timeout=0 tests/machine

fuzz: .venv/.dev ## ten minutes of fuzzing the codec
	$(PIP) --group fuzz
	$(BIN)/python -m tests.fuzz.codec -max_total_time=$(or $(SECONDS),600)

bench: .venv-bench/.made ## this library and its peers on one local server; over two hours, BENCH=--quick for less
	.venv-bench/bin/python -m benchmarks --write docs/benchmarks.md $(BENCH)

mutants: .venv/.dev ## mutation testing of the modules that decide; about an hour
	$(PIP) --group mutants
	$(BIN)/python -m tests.mutants

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "distribute-async needs Python 3.11 or newer; name one with PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PIP) 'pip>=25.1'

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[cli]'
	@touch $@

.venv/.dev: .venv/.demo
	$(PIP) --editable '.[cli,speed,fastapi,otel,testing]' --group dev
	@touch $@

.venv-lowest/.made: pyproject.toml constraints-lowest.txt
	rm -rf .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip --quiet install 'pip>=25.1'
	.venv-lowest/bin/python -m pip --quiet install --constraint constraints-lowest.txt \
		--editable '.[cli,speed,fastapi,otel,testing]' --group lowest
	@touch $@

# Apart from the others: what the peers bring along, such as another resolver for aiohttp, is not what users have.
.venv-bench/.made: pyproject.toml benchmarks/requirements.txt
	rm -rf .venv-bench
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip --quiet install --constraint constraints.txt --editable '.[speed]' \
		--requirement benchmarks/requirements.txt
	@touch $@

clean: ## remove what the other targets made
	rm -rf .venv .venv-* docs/_build .coverage .fuzz .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis dist
