# Verbs: demo · test · check · bets · book · clean. Each sets up what it needs.
SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Torch's threads wait asleep: spinning, they slow every other program and themselves (see cli/main.py)
export OMP_WAIT_POLICY ?= passive

.PHONY: help demo test check bets book clean browser
help:
	@echo "make demo   install, rerun a real bet, build the book, start a federation"
	@echo "make test   install, run every test"
	@echo "make check  lint, types, import contracts, ceilings, the catalogue's integrity"
	@echo "make bets   run every registered bet's smoke tier"
	@echo "make book   build the book under build/book"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SharedLLM needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 " )'
	@echo "Installing into $(VENV) (about 2 GB with PyTorch; two minutes on a fast connection) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@mkdir -p build
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[bets,book,dev]' 2>&1 \
	  | tee build/install.log \
	  | awk '/^Collecting/ {printf "\r  %d packages found", ++n; fflush()} /^Installing coll/ {print "; installing them …"; fflush()}' \
	  || { tail -n 20 build/install.log; echo "The installation failed; build/install.log has all of it."; exit 1; }
	@# byzfl asks for torchvision, which no test of ours needs: its rules are compared with ours, file by file
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps -c constraints.txt byzfl
	@touch $@

demo: $(READY)
	@$(BIN)/sharedllm bets run b018 --regime 135m
	@$(MAKE) --no-print-directory book
	@$(BIN)/sharedllm up

browser:
	@command -v chromium >/dev/null \
	  || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "The page is tested in Debian's chromium, which is not here; install it, or those tests fail."

test: $(READY) browser
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile
	$(BIN)/python -m pytest -q -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/rooms
	$(BIN)/sharedllm bets check

bets: $(READY)
	@for bet in $$($(BIN)/sharedllm bets list --ids); do $(BIN)/sharedllm bets run $$bet --regime toy --tier smoke || exit 1; done

book: $(READY)
	@$(BIN)/sharedllm book

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
