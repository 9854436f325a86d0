# Start with `make demo` and `make test`; `make help` lists all targets.

# The first supported Python version that is installed; the most thoroughly tested one comes first.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.10 python3; do \
    $$name -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$name; break; }; done)
VENV ?= .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
SOURCES := talkhead preprocess encoder renderers app weights
STAGES := preprocess encoder renderers app weights
DEMO := demo

export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help venv libgl chromium demo test test-short test-agents lint types ide docs bench gpu-check wheel-test \
    web-module clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

FIT_SAMPLE = $(VENV)/bin/talkhead fit --video samples/person.mp4 --name person --preset preview --yes \
	    --home $(DEMO)
demo: venv  ## set up, fit the sample person and make them speak a line (DEMO=folder for the results)
	$(FIT_SAMPLE)
	$(VENV)/bin/talkhead speak --audio samples/line.wav --identity person --home $(DEMO) \
	    --output $(DEMO)/line.mp4
	@echo
	@echo "The sample person speaks:  $(abspath $(DEMO)/line.mp4)"
	@echo "Real, rendered and pasted: $(abspath $(DEMO)/identities/person/sheet.png)"

test: venv chromium $(VENV)/.web-module  ## set up and run the tests, in one process
	$(VENV)/bin/python -m pytest

SHORT := tests/test_layout.py tests/test_portability.py tests/talkhead tests/preprocess/test_landmarks.py \
    tests/preprocess/test_person_mask.py tests/encoder/test_encoders.py tests/renderers/gaussian \
    tests/app/test_end_to_end.py tests/app/cli/test_cli.py
test-short: venv  ## set up and run a short selection for another Python version: tracking, fit and speak of the sample
	$(VENV)/bin/python -m pytest $(SHORT)

# Tests of the studio page open it in a browser. Without one they are skipped.
CHROMIUM := apt-get install -y --no-install-recommends chromium
chromium: $(STAMP)
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "Installing chromium, which the tests of the studio page need"; \
	        apt-get update -q && $(CHROMIUM); \
	    else \
	        echo "No chromium: the tests of the studio page are skipped. Run: sudo $(CHROMIUM)" >&2; \
	    fi; \
	fi

# Those of $(NEWER_AGENTS) need packages for Python 3.11. Expanded in a recipe, when $(VENV) exists.
NEWER_AGENTS := pipecat webrtc
IS_NEWER = $(shell $(VENV)/bin/python -c 'import sys; print("yes" if sys.version_info >= (3, 11) else "")')
AGENTS = livekit $(if $(IS_NEWER),$(NEWER_AGENTS))
test-agents: venv  ## set up and run the tests of the voice agents and of WebRTC, each in a separate environment
	$(if $(IS_NEWER),,@echo "Skipped, because their packages need Python 3.11: $(NEWER_AGENTS)" >&2)
	$(MAKE) --no-print-directory $(AGENTS:%=$(VENV)-%/.installed)
	set -e; for name in $(AGENTS); do \
	    $(VENV)-$$name/bin/python -c "import talkhead.app.live.$$name"; \
	    $(VENV)-$$name/bin/python -m pytest tests/app/live/test_$$name.py; \
	done

# Each environment also finds the packages of $(VENV); its own packages take precedence.
$(VENV)-%/.installed: $(STAMP)
	rm -rf $(@D)
	$(VENV)/bin/python -m venv $(@D)
	$(VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])' \
	    > $$($(@D)/bin/python -c 'import site; print(site.getsitepackages()[0])')/base.pth
	$(@D)/bin/python -m pip --disable-pip-version-check install -c constraints.txt -e '.[$*]'
	touch $@

venv: $(STAMP) libgl  ## set up .venv with all dependencies

$(STAMP): pyproject.toml setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or newer was found: install Python 3.11" >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# OpenCV needs two system libraries that slim images lack.
LIBGL := apt-get install -y --no-install-recommends libgl1 libglib2.0-0
libgl: $(STAMP)
	@$(VENV)/bin/python -c 'import cv2' 2>/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "Installing libgl1 and libglib2.0-0, which OpenCV needs"; \
	        apt-get update -q && $(LIBGL); \
	    elif command -v apt-get >/dev/null; then \
	        echo "A system library that OpenCV needs is missing. Run: sudo $(LIBGL)" >&2; \
	    fi; \
	    $(VENV)/bin/python -c 'import cv2'; }

lint: $(STAMP)  ## run ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# A tree of links to the packages that mirrors the imports, for tools that do not run Python.
TREE = rm -rf build/typing && mkdir -p build/typing/talkhead/samples && \
    ln -s $(CURDIR)/talkhead/* $(addprefix $(CURDIR)/,$(STAGES)) build/typing/talkhead/ && \
    ln -s $(CURDIR)/samples/__init__.py build/typing/talkhead/samples/

# The pages of web exports are JavaScript with types in comments; deno.json has the options.
DENO := DENO_NO_UPDATE_CHECK=1 DENO_DIR=$(CURDIR)/build/deno $(VENV)/bin/deno
types: $(VENV)/.web-types  ## check types: mypy, strict, on a tree of links that mirrors the imports; JavaScript
	$(DENO) check --quiet --no-remote --no-npm --no-lock app/web_export/page/*.js
	$(TREE)
	cd build/typing && $(CURDIR)/$(VENV)/bin/mypy --config-file $(CURDIR)/pyproject.toml \
	    --cache-dir $(CURDIR)/.mypy_cache -p talkhead

$(VENV)/.web-types: $(STAMP)
	$(PIP) install -c constraints.txt -e '.[web-types]'
	touch $@

ide: $(STAMP)  ## create the tree of links with which editors resolve `talkhead.*` (see pyproject.toml)
	$(TREE)

# The sample person of its page about web exports: that of `make demo`, or they are fitted first.
PERSON := $(DEMO)/identities/person/identity.json
SAMPLE_SITE := build/sample_site/manifest.json
docs: $(VENV)/.docs $(SAMPLE_SITE)  ## build the documentation into site/ and check that its pages load nothing external
	$(TREE)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	cp -r $(dir $(SAMPLE_SITE)) site/sample
	$(VENV)/bin/python docs/check_site.py site

$(PERSON): | venv
	$(FIT_SAMPLE)

$(SAMPLE_SITE): $(PERSON) samples/line.wav $(wildcard app/web_export/*.py app/web_export/page/*)
	mkdir -p build
	$(VENV)/bin/talkhead export-web person --home $(DEMO) --line samples/line.wav \
	    --consent "This person is synthetic." --output $(@D)

$(VENV)/.docs: $(STAMP)
	$(PIP) install -c constraints.txt -e '.[docs]'
	touch $@

bench: venv  ## measure the README's figures and print them as JSON lines
	$(VENV)/bin/python -m benchmarks

gpu-check: venv  ## fit and render on a CUDA device, and compare its images with those of the CPU
	$(VENV)/bin/python -m benchmarks.gpu_check

wheel-test: $(STAMP)  ## build the wheel, install it into a clean environment, and run fit and speak with it
	rm -rf build/wheel-test build/lib build/bdist.*  # setuptools would pack stale files of build/lib
	$(PIP) wheel --no-deps --wheel-dir build/wheel-test .
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/python -m pip --disable-pip-version-check install -q \
	    -c constraints.txt build/wheel-test/talkhead-*.whl
	cd build/wheel-test && venv/bin/python $(CURDIR)/tests/helpers/installed.py \
	    $(CURDIR)/samples/person.mp4 $(CURDIR)/samples/line.wav

web-module: $(VENV)/.web-module  ## compile the modules of web exports, app/web_export/module
	$(VENV)/bin/python -m talkhead.app.web_export.build_modules

$(VENV)/.web-module: $(STAMP)
	$(PIP) install -c constraints.txt -e '.[web-module]'
	touch $@

clean:  ## remove everything that make created, including .venv
	rm -rf build dist site *.egg-info .venv* .pytest_cache .mypy_cache .ruff_cache .hypothesis $(DEMO)
