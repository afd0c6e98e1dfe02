# make quickstart   the main job on simulated data: teacher, student, distilled students, one table;
#                   DETECTOR=second or pointrcnn, SEEDS=3 for three seeds of each student
# make test         every test that needs no GPU and no downloads
# make lint         ruff, ruff format, clang-format
# make bench        the benchmarks of tools/benchmarks; figures in output/bench, and a table of them and the goals
# make sanitize     the tests of the native ops under AddressSanitizer and UBSan, CPU
# make gpu-check    build with CUDA, run the tests marked gpu, run the benchmarks; figures in output/bench_gpu, and a
#                   table of them, the card's limits and the goals
#
# Python 3.10-3.12, g++ and make are all that is needed; everything else goes into .venv. A second call sets nothing up again.

PYTHON ?= python3
VENV ?= .venv
DETECTOR ?= pointpillar
SEEDS ?= 1
JOBS ?= 2

PY := $(abspath $(VENV))/bin/python
PYTEST := $(PY) -m pytest

# Which torch and spconv: a machine with an NVIDIA driver gets the CUDA builds. Both can be set by hand.
PY_MINOR := $(shell $(PYTHON) -c 'import sys; print(sys.version_info[1])')
ifneq ($(shell command -v nvidia-smi 2>/dev/null),)
TORCH ?= torch>=2.11,<2.14
SPCONV ?= $(if $(filter 12,$(PY_MINOR)),spconv-cu126==2.3.8,spconv-cu120==2.3.6)
else
TORCH ?= torch==2.13.0
SPCONV ?= spconv==2.3.8
endif

OPS_SOURCES := $(shell find pcdet/ops -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.cuh' -o -name '*.inc') setup.py
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
OPS := $(VENV)/.ops

.PHONY: setup quickstart test lint bench gpu-check sanitize clean

setup: $(RUNTIME) $(OPS)

$(RUNTIME): requirements.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; assert (3, 10) <= v[:2] <= (3, 12), f"Python 3.10-3.12 is needed, this is {sys.version}"'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check '$(TORCH)' '$(SPCONV)' -r requirements.txt
	touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(OPS): $(OPS_SOURCES) $(RUNTIME)
	$(PY) setup.py --quiet build_ext --inplace
	touch $@

quickstart: setup
	cd tools && $(PY) quickstart.py --detector $(DETECTOR) --seeds $(SEEDS) --jobs $(JOBS)

test: setup $(DEV)
	$(PYTEST) -n $(JOBS) --dist loadscope --cov --cov-report term:skip-covered --cov-fail-under 85 -m "not gpu"

lint: $(DEV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -r $(VENV)/bin/clang-format --dry-run -Werror

bench: setup $(DEV)
	mkdir -p output/bench
	cd tools/benchmarks && for script in bm_*.py; do \
	  $(PY) $$script --json $(CURDIR)/output/bench/$${script%.py}.json || exit 1; done
	$(PY) tools/benchmarks/summarise.py

# A copy of the package with its own library, so that the one in use stays as it is. Python itself is not instrumented:
# the sanitizers' libraries are loaded ahead of it (with libstdc++, whose exceptions they watch), and leaks, which are
# Python's and torch's, are not counted.
SANITIZED := $(CURDIR)/build/sanitize
sanitize: $(DEV)
	PCDET_SANITIZE=address,undefined FORCE_CUDA=0 $(PY) setup.py --quiet build --build-lib $(SANITIZED)/lib --build-temp $(SANITIZED)/temp
	cd $(SANITIZED)/lib && \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so.6)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(PYTEST) -p no:cacheprovider -n $(JOBS) --dist loadscope -m "not gpu" $(CURDIR)/tests/ops

# Uses the interpreter it is given as it is: the machine's own torch, nothing is installed.
gpu-check:
	FORCE_CUDA=1 $(PYTHON) setup.py --quiet build_ext --inplace
	$(PYTHON) -m pytest -m gpu
	mkdir -p output/bench_gpu
	cd tools/benchmarks && for script in $$(grep -l -e --device bm_*.py); do \
	  $(PYTHON) $$script --device cuda --json $(CURDIR)/output/bench_gpu/$${script%.py}.json || exit 1; done
	$(PYTHON) tools/benchmarks/roofline.py

clean:
	rm -rf build pcdet/ops/*.so
