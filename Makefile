# `make demo` and `make test` need python3 and make; they install all else into .venv.

PYTHON ?= python3
PIP = -m pip --disable-pip-version-check -q
QUESTION ?=
# By the environment, as it is: neither make nor the shell is to read what is in it.
override QUESTION := $(value QUESTION)
export QUESTION
PYTEST_ARGS ?=
PAGE_ARGS ?=
BENCH_ARGS ?=
# The oldest releases that pyproject.toml allows.
LOWEST = langchain-core==1.6.0 httpx==0.28.1 pydantic==2.10.0 tenacity==8.4.1

.PHONY: demo test unit unit-coverage coverage test-random test-fast test-lowest lint bench bench-limits fuzz \
	mutants break-faults chaos memory chat-page test-pages clean

demo: .venv/demo
	@if [ -n "$$QUESTION" ]; then .venv/bin/python -m langchain_thinnest -- "$$QUESTION"; \
	else .venv/bin/python -m langchain_thinnest; fi

# A file of tests to a process, and two processes to a core: tests mostly wait.
WORKERS = $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
SIDE_BY_SIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder --benchmark-disable
# By default the order of the files; `make test-random` takes another one each time.
ORDER ?= -p no:randomly
# Tests that depend on time more than others run behind them, alone. Exit status 5: PYTEST_ARGS
# chooses none.
define pytest
	$(1) -m pytest $(ORDER) $(SIDE_BY_SIDE) -m "not alone" $(2) $(PYTEST_ARGS) || [ $$? = 5 ]
	$(1) -m pytest $(ORDER) -m alone $(2) $(or $(PYTEST_ARGS),integration_tests) || [ $$? = 5 ]
endef
# Each process needs the compiled tests: let Python keep them.
test unit test-random test-lowest test-fast unit-coverage coverage: export PYTHONDONTWRITEBYTECODE =

test: .venv/test
	$(call pytest,.venv/bin/python,)

test-random:
	$(MAKE) test ORDER=

# Those that open no socket. They wait for nothing, so a process to a core is enough.
UNIT = .venv/bin/python -m pytest unit_tests $(ORDER) $(SIDE_BY_SIDE) -n auto

unit: .venv/test
	$(UNIT) $(PYTEST_ARGS)

# How much of the package the unit tests reach alone, and all tests together.
unit-coverage: .venv/test
	$(UNIT) --cov --cov-fail-under=92 $(PYTEST_ARGS)

coverage: unit-coverage
	.venv/bin/python -m pytest integration_tests $(ORDER) $(SIDE_BY_SIDE) -m "not alone" \
		--cov --cov-append --cov-report= $(PYTEST_ARGS)
	.venv/bin/python -m pytest integration_tests $(ORDER) --benchmark-disable -m alone \
		--cov --cov-append --cov-fail-under=98 $(PYTEST_ARGS)

# The tests of connections once more: over the fast transport, and with clients of httpx2.
OF_CONNECTIONS = $(patsubst %,integration_tests/test_%.py,answer calls cancellation connections \
	errors faults http2 json_answers lifetime limits pools retries)

test-fast: export THINNEST_TEST_TRANSPORT = fast
test-fast: export THINNEST_TEST_HTTPX = httpx2
test-fast: .venv/test
	$(call pytest,.venv/bin/python,$(OF_CONNECTIONS))

# The core's tests; what needs LangChain's agents or LangGraph runs on the newest set only.
test-lowest: .venv-lowest/test
	$(call pytest,.venv-lowest/bin/python,--ignore=integration_tests/agents)

lint: .venv/test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/basedpyright --pythonpath .venv/bin/python
	.venv/bin/lint-imports --no-cache

# Speed beside raw httpx, the framework and other packages: benchmarks/README.md.
bench: .venv/bench
	.venv/bin/python -m benchmarks $(BENCH_ARGS)

# How processes share limits, and what that costs: docs/many-workers.md.
bench-limits: .venv/test
	.venv/bin/python -m benchmarks.limits $(BENCH_ARGS)

# Longer looks at what the tests look at briefly.
fuzz: .venv/test
	.venv/bin/python -m pytest --hypothesis-profile=fuzz -o faulthandler_timeout=0 \
		unit_tests/test_fuzz.py unit_tests/test_limits.py unit_tests/test_sse.py \
		unit_tests/test_turn.py

mutants: .venv/test
	.venv/bin/python -m pip --disable-pip-version-check -q install "mutmut>=3.3"
	rm -rf mutants && .venv/bin/mutmut run; .venv/bin/mutmut results

# Breaks the rule behind each row of docs/faults.md, to see that the row's tests notice.
break-faults: .venv/test
	.venv/bin/python integration_tests/break_faults.py

chaos: .venv/test
	.venv/bin/python -m integration_tests.chaos --turns 20000 --seed 7

memory: .venv/test
	.venv/bin/python -m integration_tests.memory

# A page to chat with an agent on: docs/chat-page.md. PAGE_ARGS="--headless --port 8000"
chat-page: .venv-pages/pages
	@.venv-pages/bin/python cookbook/chat_page $(PAGE_ARGS)

# The chat page in a real Chromium.
test-pages: .venv-pages/pages
	.venv-pages/bin/python -m pytest integration_tests/pages $(PYTEST_ARGS)

clean:
	rm -rf .venv .venv-lowest .venv-pages build dist mutants

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up .venv; this takes a minute, once."
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "On Debian: apt install python3-venv"; exit 1; }
	@.venv/bin/python $(PIP) install --upgrade pip

.venv/demo: .venv/bin/python pyproject.toml
	@.venv/bin/python $(PIP) install -e ".[emulator]"
	@touch $@

.venv/test: .venv/bin/python pyproject.toml
	@echo "Installing what the tests need; this takes a few minutes, once."
	@.venv/bin/python $(PIP) install -e ".[cookbook]" \
		--group lint --group test --group test-agents
	@touch $@ .venv/demo

.venv/bench: .venv/bin/python pyproject.toml
	@.venv/bin/python $(PIP) install -e . --group bench
	@touch $@

.venv-lowest/test: pyproject.toml Makefile
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP) install --upgrade pip
	.venv-lowest/bin/python $(PIP) install -e ".[emulator]" --group test $(LOWEST)
	@touch $@

# Apart from .venv, since Chainlit pins much.
.venv-pages/pages: pyproject.toml
	@echo "Setting up .venv-pages; this takes a minute, once."
	@$(PYTHON) -m venv .venv-pages
	@.venv-pages/bin/python $(PIP) install --upgrade pip
	@.venv-pages/bin/python $(PIP) install -e ".[emulator]" --group pages
	@touch $@
