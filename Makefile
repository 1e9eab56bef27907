# Everything starts here: `make` lists what there is. Needs Python 3.10 or newer and make, nothing else set up before.
.DEFAULT_GOAL := help
.PHONY: help setup sdk demo test sweep bench lint clean
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
# The newest that works is taken; PYTHON=/path/to/python overrides.
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3.10 python3)
RUNTIME := micropython
PACKAGES := $(VENV)/.packages
MICROPYTHON := build/micropython/.ready
SDK := build/sdk/.packages
SDK_NODE := build/sdk-node/.packages
PEERS := build/peers/.packages

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(PACKAGES) $(MICROPYTHON)  ## install what demo and test need (they do it by themselves)

demo: setup  ## from a blank board to telemetry, on the simulator and a virtual board; RUNTIME=circuitpython
	@$(VENV)/bin/esp-dps demo --runtime $(RUNTIME)

sdk: $(SDK) $(SDK_NODE)  ## install Microsoft's SDKs, which test holds the simulator against

test: setup $(SDK) $(SDK_NODE)  ## every test, on CPython and on real MicroPython, 64 and 32 bit
	@$(PY) -m pytest -n 4 --dist worksteal host_tests

sweep: setup  ## every power cut and every fault (minutes)
	@ESP_DPS_SWEEP=1 $(PY) -m pytest -n 2 -m sweep host_tests/system

# Who else does the same is measured beside us; one that cannot be installed is a row that says so.
bench: setup  ## measure, beside others, into bench/results.json and bench/chart.svg (minutes)
	@$(MAKE) --no-print-directory $(SDK) || true
	@$(MAKE) --no-print-directory $(PEERS) || true
	@$(PY) -m espdps.bench

lint: $(PACKAGES)  ## check style and types
	@$(PY) -m ruff check .
	@$(PY) -m mypy

clean:  ## remove what make made; devices/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A half-made environment has no stamp and is made again. hatchling comes first, at its pinned version, and builds this
# package without an isolated environment, which would fetch another hatchling past the constraints.
$(PACKAGES): pyproject.toml tools/constraints.txt tools/constraints-circuitpython.txt Makefile
	@chosen=; old=; bare=; \
	for python in $(PYTHONS); do \
		"$$python" -c '' 2>/dev/null || continue; \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { old="$$old $$python"; continue; }; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || { bare="$$bare $$python"; continue; }; \
		chosen="$$python"; break; \
	done; \
	if [ -z "$$chosen" ]; then \
		if [ -n "$$bare" ]; then \
			echo "make:$$bare cannot make virtual environments; install the package python3-venv (Debian, Ubuntu) and run make again" >&2; \
		elif [ -n "$$old" ]; then \
			echo "make:$$old is too old; install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3" >&2; \
		else \
			echo "make: no Python found; install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3" >&2; \
		fi; \
		exit 1; \
	fi; \
	echo "installing packages into $(VENV) with $$("$$chosen" --version)"; \
	"$$chosen" -m venv --clear $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check -c tools/constraints.txt hatchling hatch-fancy-pypi-readme
	@$(PY) -m pip install -q --disable-pip-version-check -c tools/constraints.txt --no-build-isolation -e '.[test]'
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps -r tools/constraints-circuitpython.txt
	@touch $@

$(MICROPYTHON): tools/espdps/virtual_board/micropython.py | $(PACKAGES)
	@$(PY) -m espdps.virtual_board.micropython
	@touch $@

# Of the same Python as ours. paho-mqtt of that age is no wheel: it is built with the setuptools that we pin.
$(SDK): tools/constraints-sdk.txt | $(PACKAGES)
	@echo "installing Microsoft's SDKs into $(@D)"
	@$(PY) -m venv --clear $(@D)
	@pip="$(@D)/bin/python -m pip install -q --disable-pip-version-check"; \
	$$pip -c tools/constraints.txt setuptools && \
	$$pip --no-build-isolation --only-binary uamqp -r tools/constraints-sdk.txt || { \
		echo "make: Microsoft's SDKs cannot be installed, see above; the tests that hold the simulator against them" >&2; \
		echo "need what tools/constraints-sdk.txt names, from PyPI, and Python 3.10 to 3.13: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	}
	@touch $@

# Those for Node. Without npm, or when it fails, their tests say so and are left out; the next make tries again.
$(SDK_NODE): tools/sdk-node.json
	@if ! command -v npm >/dev/null; then \
		echo "make: npm is missing, so the tests against Microsoft's SDKs for Node are left out" >&2; \
	else \
		echo "installing Microsoft's SDKs for Node into $(@D)"; \
		mkdir -p $(@D) && cp $< $(@D)/package.json && \
		npm install --prefix $(@D) --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel error && touch $@ || \
		echo "make: Microsoft's SDKs for Node cannot be installed, see above; their tests are left out" >&2; \
	fi

$(PEERS): tools/constraints-peers.txt | $(PACKAGES)
	@echo "installing Adafruit's client into $(@D)"
	@$(PY) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r tools/constraints-peers.txt
	@touch $@
