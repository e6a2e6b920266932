# On a machine with Python 3.11+ and make, `make demo` and `make test` do all their set-up themselves.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
EXAMPLES ?= 20

.DEFAULT_GOAL := help
.PHONY: help demo test check interop hostile campaigns campaign-fuzz explore bench bench-quick bench-store format clean

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# One stamp for the program, one for what the tests need, so that each is set up once.
$(VENV)/.program: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("imgtar needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/python -m compileall -q imgtar  # As pip does for a package: where Python may not write bytecode, every start would compile.
	touch $@

$(VENV)/.tests: $(VENV)/.program
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.program  ## Verify, load, list and save a real archive; then carry only what changed
	@sh docs/demo.sh $(BIN)/imgtar

test: $(VENV)/.tests  ## Run the tests (fast ones; see interop)
	$(BIN)/python -m pytest -n $(JOBS) -m "not interop and not slow"

check: $(VENV)/.tests  ## ruff, mypy and the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

interop: $(VENV)/.tests  ## Exchange archives with Docker, podman, skopeo, containerd, umoci, buildah (needs them, and root)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m interop --durations 8

hostile: $(VENV)/.tests  ## Every hostile input to every command in every form (about 15 minutes)
	IMGTAR_CAMPAIGN=long $(BIN)/python -m pytest -n $(JOBS) tests/hostile

campaign-%: $(VENV)/.tests
	IMGTAR_CAMPAIGN=long $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests/campaigns/test_$*.py

campaign-fuzz: $(VENV)/.tests
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	IMGTAR_CAMPAIGN=long $(BIN)/python -m pytest -n $(JOBS) tests/campaigns/test_fuzz.py

campaigns: $(VENV)/.tests  ## Every long campaign, one after the other (hours); campaign-NAME runs one, IMGTAR_SEED=N other cases
	IMGTAR_CAMPAIGN=long $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests/campaigns

explore: $(VENV)/.tests  ## Property tests with new random cases, EXAMPLES times as many as usual; IMGTAR_SEED=N for the same ones again
	IMGTAR_HYPOTHESIS=explore IMGTAR_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -n $(JOBS) -m "not interop" \
	    $(if $(IMGTAR_SEED),--hypothesis-seed=$(IMGTAR_SEED)) $$(grep -rlE "@given|StateMachine" tests --include='test_*.py')

bench: $(VENV)/.tests  ## Measure against the goals: plain loops and the peers that are installed (under 10 minutes; peers need root)
	$(BIN)/python benchmarks/run.py

bench-quick: $(VENV)/.tests  ## The same, small and without peers (under 1 minute)
	$(BIN)/python benchmarks/run.py --quick

bench-store: $(VENV)/.tests  ## How a load grows with the store, to 10,000 images (about 5 minutes)
	$(BIN)/python benchmarks/store_growth.py

format: $(VENV)/.tests  ## Format and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/work
