# Everything runs from here. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV_VERSION := 0.13.9
CACHE := $(or $(AI_SANDBOX_LAB_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ai-sandbox-lab)
UV := $(shell command -v uv 2>/dev/null || echo $(CACHE)/uv-$(UV_VERSION)/bin/uv)
PY := .venv/bin/python
DOCS := build/docs-venv
export PYTHONPATH := operator:tests
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help setup lab demo test test-slow test-unit test-networkpolicy test-controlplane test-gateway test-chat test-fetch test-chart test-gitops test-node test-delivery compare-engine results docs test-e2e lint format generate lock bench bench-gateway clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 22

$(UV):
	@echo "installing uv $(UV_VERSION) into $(CACHE)"
	@python3 -m venv $(CACHE)/uv-$(UV_VERSION)
	@$(CACHE)/uv-$(UV_VERSION)/bin/pip install --quiet uv==$(UV_VERSION)

.venv/ready: requirements-dev.lock pyproject.toml | $(UV)
	@echo "installing the locked Python packages into .venv"
	@$(UV) venv --quiet --allow-existing .venv
	@$(UV) pip sync --quiet --require-hashes --python $(PY) requirements-dev.lock
	@touch $@

setup: .venv/ready ## install the locked Python packages into .venv

lab: .venv/ready ## build the real control plane once (about 8 minutes on two cores; cached outside the checkout)
	@$(PY) -m lab build

demo: lab ## the whole story on a real API server, narrated; KEEP=1 leaves it running
	@$(PY) -m lab.demo $(if $(KEEP),--keep)

test: lab ## everything but the slow sweeps and the browser; the lab's tests on two control planes side by side
	@$(PY) -m pytest -m "not slow" -n 2 tests/unit tests/delivery tests/observability tests/fetch tests/gateway tests/networkpolicy
	@$(PY) -m pytest -m "not slow" -n 2 --dist loadfile tests/controlplane tests/e2e tests/chart tests/manifests tests/gitops

test-slow: lab ## the complete sweeps: every kill point, longer silences (half an hour)
	@$(PY) -m pytest -m slow --timeout 3600 tests

test-unit: .venv/ready ## pure code, no server
	@$(PY) -m pytest tests/unit

test-fetch: .venv/ready ## the download under every fault, against a simulator of the hub
	@$(PY) -m pytest -m "not slow" tests/fetch

test-networkpolicy: .venv/ready ## who may talk to whom, judged by an independent reader of the policies
	@$(PY) -m pytest -m "not slow" -n 2 tests/networkpolicy

test-gateway: .venv/ready ## the rendered configuration in the real Envoy
	@$(PY) -m pytest tests/gateway

test-chat: .venv/ready ## the real Open WebUI behind the real Envoy, in a headless browser (needs root; PICTURES=1 renews docs/pictures)
	@$(PY) -m chat.environments
	@$(if $(PICTURES),AI_SANDBOX_PICTURES=1) $(PY) -m pytest tests/chat

compare-engine: .venv/ready ## the stand-in for vLLM next to the real one: VLLM=path of its program; without, next to a recording
	@$(PY) -m lab.engine.compare $(if $(VLLM),--engine $(VLLM))

test-chart: lab ## the Helm chart with Helm 4 and 3: values, rights, install to uninstall on a real API server
	@$(PY) -m pytest -m "not slow" tests/chart

test-delivery: .venv/ready ## the image's steps replayed, workflows checked (needs network)
	@$(PY) -m pytest tests/delivery

results: lab ## write docs/reference/tested.md anew from TESTS=path of tests
	@rm -rf build/results
	@AI_SANDBOX_RESULTS=$(CURDIR)/build/results $(PY) -m pytest $(PYTEST) $(TESTS)
	@$(PY) scripts/results.py --take build/results

docs: | $(UV) ## the documentation site, strict, in build/site
	@$(UV) venv --quiet --allow-existing $(DOCS)
	@$(UV) pip sync --quiet --require-hashes --python $(DOCS)/bin/python docs/requirements.lock
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

test-controlplane: lab ## against a real API server, scheduler and controller manager
	@$(PY) -m pytest -m "not slow" tests/controlplane

test-e2e: lab ## through pytest-kind: real kind where a container engine runs, the lab elsewhere
	@$(PY) -m pytest tests/e2e

test-gitops: lab ## manifests, admission policies, and what Argo CD, Flux, Helm and kubectl find on kept sandboxes
	@$(PY) -m pytest -m "not slow" tests/manifests tests/gitops

test-node: lab ## the operator and a sandbox in real containers under a real kubelet (root on Debian; not part of `make test`)
	@$(PY) -m lab.node prepare
	@$(if $(RESULTS),AI_SANDBOX_RESULTS=$(CURDIR)/build/results) $(PY) -m lab.node run $(PY) -m pytest $(PYTEST) tests/node
	@$(if $(RESULTS),$(PY) scripts/results.py --take build/results)

lint: .venv/ready ## formatter, linter, types, layers, generated files
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PY) scripts/generate.py --check
	@$(PY) scripts/chart.py --check
	@$(PY) scripts/metrics.py --check
	@$(PY) scripts/results.py --check

format: .venv/ready ## apply the formatter
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

generate: .venv/ready ## CRD, references, the chart's rules and its README, the manifest for kubectl
	@$(PY) scripts/generate.py
	@$(PY) scripts/chart.py
	@$(PY) scripts/metrics.py
	@$(PY) scripts/install_manifest.py

lock: | $(UV) ## resolve and pin all Python packages anew
	@$(UV) pip compile -q pyproject.toml --universal --generate-hashes --no-header -o requirements.lock
	@$(UV) pip compile -q pyproject.toml --group dev --universal --generate-hashes --no-header -o requirements-dev.lock
	@cd tests/networkpolicy && $(UV) pip compile -q requirements-nca.in --universal --python-version 3.11 --generate-hashes --no-header -o requirements-nca.lock
	@cd tests/manifests && $(UV) pip compile -q requirements-judges.in --universal --python-version 3.11 --generate-hashes --no-header -o requirements-judges.lock
	@cd tests/chat && $(UV) pip compile -q open-webui.in --excludes open-webui-excludes.txt --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o open-webui.lock
	@cd tests/chat && $(UV) pip compile -q playwright.in --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o playwright.lock
	@cd docs && $(UV) pip compile -q requirements.in --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements.lock
	@cd .github/image && $(UV) pip compile -q build.in --universal --python-version 3.11 --generate-hashes --no-header -o build.lock

bench: lab ## figures: latency, throughput, requests, memory, restart; writes bench-results.json
	@$(PY) -m bench --out bench-results.json

bench-gateway: lab ## what the gateway costs, and how soon an edit of the access has its effect
	@$(PY) -m bench.gateway --out bench-gateway-results.json
	@$(PY) -m bench.access --out bench-access-results.json

clean: ## remove what was made in the checkout
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build bench-results.json bench-gateway-results.json bench-access-results.json
