# Everything happens in .venv; every target works in a fresh clone and can be repeated.
# The Python to use: python3 if it is one of those that Bitwright is made for, else the newest of them that is there.
PYTHONS := python3 python3.13 python3.12 python3.11
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(firstword $(foreach python,$(PYTHONS),$(shell $(python) -c '$(FITS)' 2>/dev/null && echo $(python))))
# Where PyTorch's build for processors lies: that of PyPI for Linux is for GPUs, gigabytes larger. Empty: as pip is configured.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Processes that test at once: one more than processors, as many tests wait for a browser or a process of their own.
TESTERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WEB := src/bitwright/studio/web
BUILT := src/bitwright/studio/built/sources.sha256

.PHONY: demo test quick lint docs studio clean

demo: $(READY)
	$(BIN)/bitwright demo -o demo-output

test: $(READY) $(BUILT) lint docs
	$(BIN)/python -m pytest -n $(TESTERS) --dist worksteal

# The tests that are not marked slow, in minutes; its last lines are where its time went.
quick: $(READY) $(BUILT)
	$(BIN)/ruff check src tests bench scripts hatch_build.py
	$(BIN)/ruff format --check src tests bench scripts hatch_build.py
	$(BIN)/python -m pytest -n $(TESTERS) --dist worksteal -m "not slow" --durations=10

studio: $(READY) $(BUILT)
	$(BIN)/bitwright studio

lint: $(READY) $(BUILT)
	$(BIN)/ruff check src tests bench scripts hatch_build.py
	$(BIN)/ruff format --check src tests bench scripts hatch_build.py
	$(BIN)/mypy
	$(BIN)/python scripts/build_web.py check

# The documentation site, in site/. Strict: a dead link, a missing anchor or a page that is in no menu fails (not with --quiet!).
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# pip, not another installer: of two builds of the PyTorch that the constraints pin, it prefers the one for processors.
$(READY): pyproject.toml constraints.txt scripts/install.py
	@command -v "$(PYTHON)" >/dev/null || { echo "Bitwright needs Python 3.11 to 3.13: apt-get install python3 python3-venv, or make PYTHON=..."; exit 1; }
	@$(PYTHON) -c '$(FITS)' || { echo "Bitwright needs Python 3.11 to 3.13, this is $$($(PYTHON) --version)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python scripts/install.py "$(TORCH_INDEX)"
	@touch $@

# The studio's pages: installing builds them; this builds them again when a source changed.
$(BUILT): $(READY) $(wildcard $(WEB)/*.* $(WEB)/src/*.* $(WEB)/src/*/*.*)
	$(BIN)/python scripts/build_web.py

clean:
	rm -rf $(VENV) site demo-output demo-output.partial src/bitwright/studio/built $(WEB)/node_modules $(WEB)/.fonts
