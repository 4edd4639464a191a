# Everything happens in .venv; every target works in a fresh clone and can be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WEB := src/bitwright/studio/web
BUILT := src/bitwright/studio/built/sources.sha256

.PHONY: demo test quick lint docs studio clean

demo: $(READY)
	$(BIN)/bitwright demo -o demo-output

test: $(READY) $(BUILT) lint docs
	$(BIN)/python -m pytest -n auto --dist worksteal

# The tests that are not marked slow, in minutes; its last lines are where its time went.
quick: $(READY) $(BUILT)
	$(BIN)/ruff check src tests bench scripts hatch_build.py
	$(BIN)/ruff format --check src tests bench scripts hatch_build.py
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" --durations=10

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

# pip, not another installer: the constraints pin PyTorch to the release that pip resolves to a CPU build.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Bitwright needs Python 3.11 or newer: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Bitwright needs Python 3.11 or newer, this is $$($(PYTHON) --version)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[onnx,studio,postgres,docs,dev]'
	@touch $@

# The studio's pages: installing builds them; this builds them again when a source changed.
$(BUILT): $(READY) $(wildcard $(WEB)/*.* $(WEB)/src/*.* $(WEB)/src/*/*.*)
	$(BIN)/python scripts/build_web.py

clean:
	rm -rf $(VENV) site demo-output demo-output.partial src/bitwright/studio/built $(WEB)/node_modules $(WEB)/.fonts
