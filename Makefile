# make quickstart   the main job on simulated data: teacher, student, distilled students, one table;
#                   DETECTOR=second, pointrcnn or centerpoint, SEEDS=3 for three seeds of each student; DATA=nuscenes for
#                   a CenterPoint on scenes in nuScenes' layout
# make lab          the laboratory: which distillation helps, by how much and over which controls; hours of CPU time, goes on
#                   after a kill; DETECTOR=second, JOBS=8 for eight at a time (docs/EXPERIMENTS.md)
# make test         every test that needs no GPU and no downloads
# make lint         ruff, ruff format, clang-format
# make bench        the benchmarks of tools/benchmarks; figures in output/bench, and a table of them and the goals
# make cuda-compiles   the CUDA sources through nvcc, for sm_80 and sm_90 and without a GPU; the nvcc is one of its own, in
#                   build/nvcc
# make sanitize     the tests of the native ops under AddressSanitizer and UBSan, CPU
# make cuda-emulated   the tests marked gpu, on the CUDA kernels compiled for the CPU (tools/dev/cuda_emulator);
#                   SCHEDULES="0 -1 7" for several orders of threads and blocks, MODE=fused for a build that fuses
# make cuda-watch   the same tests with every memory access of a kernel watched, and under AddressSanitizer and UBSan;
#                   each barrier of the kernels left out in turn. By hand, and before a release: about half an hour
# make soak         trainings that are killed, starved of disk space, cut short and run for long, for SECONDS=120; SEED=1
#                   for other cases, JSON=FILE to add the counts to a file (docs/RELIABILITY.md)
# make fuzz         odd files for every reader and odd tensors for every native op, SECONDS=120 in all; SANITIZE=0 leaves
#                   the sanitizers out, FUZZ='--targets kitti' chooses, and what it chooses gets all the time; what fails
#                   is kept in tests/regressions
# make gpu-check    on a machine with a GPU, in ten minutes: build with CUDA, tests marked gpu, benchmarks beside the card's
#                   limits, a distilled training step of each detector, a profile; a report in output/gpu_check. A second
#                   call goes on; CHECK='--device cpu --small' rehearses (tools/dev/gpu_check/README.md)
# make sbom         what .venv holds: output/sbom.cdx.json, a software bill of materials, and docs/LICENCES.md
# make lock-versions   versions and hashes of all packages, from requirements*.txt into requirements/;
#                   LOCK_FLAGS=--upgrade takes the newest ones
#
# Python 3.10-3.12, g++ and make are all that is needed; everything else goes into .venv. A second call
# sets up only what has changed: the TORCH, SPCONV or FORCE_CUDA asked for, the locked versions, the ops' sources, a
# library that is gone. Where there is an NVIDIA driver and no nvcc that fits torch, NVIDIA's goes into .venv/nvcc.

PYTHON ?= python3
VENV ?= .venv
DETECTOR ?=
DATA ?= kitti
SEEDS ?= 1
JOBS ?= 2
SECONDS ?= 120
SEED ?= 0
SANITIZE ?= 1
FUZZ ?=

# Make's targets cannot hold blanks. The checkout's own path may: targets are relative to it, and recipes quote.
ifneq ($(words $(VENV)),1)
$(error VENV must be one path without blanks, got "$(VENV)"; .venv, the default, works in any checkout)
endif

PY := $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)/bin/python
PYTEST := "$(PY)" -m pytest
STEP := @"$(PYTHON)" tools/run_step.py
# Wheels only: a source package would fetch tools for its build that no lock names.
PIP_INSTALL := "$(PY)" -m pip install --quiet --disable-pip-version-check --only-binary :all:

# Which torch and spconv: what was asked for by hand, now or in an earlier call; otherwise a machine with an NVIDIA
# driver gets the CUDA builds. ASKED holds what was asked for, CHOICE the builds that follow from it. FORCE_CUDA, 1 or 0
# for ops with CUDA or without, is kept in ASKED_OPS; an empty one leaves the choice to setup.py again.
ASKED := $(VENV)/.asked.mk
ASKED_OPS := $(VENV)/.asked_ops.mk
CHOICE := $(VENV)/.choice
-include $(ASKED) $(ASKED_OPS)
ifneq ($(origin TORCH),undefined)
ASKED_TORCH := $(TORCH)
endif
ifneq ($(origin SPCONV),undefined)
ASKED_SPCONV := $(SPCONV)
endif
ifneq ($(origin FORCE_CUDA),undefined)
ASKED_FORCE_CUDA := $(FORCE_CUDA)
endif
# $(call keep,NAME ...): writes what was asked for under these names; a recipe does so when it has done it.
keep = @printf '%s\n' $(foreach name,$(1),$(if $(ASKED_$(name)),'ASKED_$(name) := $(ASKED_$(name))'))

# $(call minor,PROGRAM): of an environment's Python once there is one, and until then of the one that will make it.
minor = $(shell python="$(PYTHON)"; test -x "$(1)" && python="$(1)"; "$$python" -c 'import sys; print(sys.version_info[1])')
PY_MINOR := $(call minor,$(PY))
LOCK := requirements/lock-py3.$(PY_MINOR).txt
DEV_LOCK := requirements/lock-dev-py3.$(PY_MINOR).txt
# An environment of its own, apart from the packages that its tools look at.
TOOLS := build/tools
TOOLS_LOCK := requirements/lock-tools-py3.$(call minor,$(TOOLS)/bin/python).txt

ifneq ($(shell command -v nvidia-smi 2>/dev/null),)
DEFAULT_TORCH := torch>=2.11,<2.14
DEFAULT_SPCONV := $(if $(filter 12,$(PY_MINOR)),spconv-cu126==2.3.8,spconv-cu120==2.3.6)
else
DEFAULT_TORCH := torch==2.13.0
DEFAULT_SPCONV := spconv==2.3.8
endif
override TORCH := $(or $(ASKED_TORCH),$(DEFAULT_TORCH))
override SPCONV := $(or $(ASKED_SPCONV),$(DEFAULT_SPCONV))
override FORCE_CUDA := $(ASKED_FORCE_CUDA)

OPS_SOURCES := $(shell find pcdet/ops -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.cuh' -o -name '*.inc') setup.py
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
LIBRARY := pcdet/ops/_C.so
BUILT_FOR := build/ops_built_for

# $(call record,LINES): the target holds these lines, and is written, hence newer, only if it did not hold them before.
record = @mkdir -p $(@D); printf '%s\n' $(1) | cmp -s - $@ || printf '%s\n' $(1) >$@

.PHONY: setup quickstart lab test lint cuda-compiles bench gpu-check sanitize cuda-emulated cuda-watch soak fuzz sbom \
  lock-versions clean FORCE

setup: $(RUNTIME) $(LIBRARY)

$(CHOICE): FORCE
	$(call record,'$(TORCH)' '$(SPCONV)')

# A lock that is not there: of a Python that is not supported, or deleted.
$(LOCK) $(DEV_LOCK) $(TOOLS_LOCK):
	@"$(PYTHON)" -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 12) or sys.exit(f"Python 3.10-3.12 is needed, $(PYTHON) is {sys.version}; name another one: make setup PYTHON=python3.12")'
	@echo "$@ is missing, the versions to install: git checkout $@" >&2; exit 1

# Builds of spconv share a folder and hide each other: the other ones go first. The packages of the lock are installed
# before torch and spconv, which find in place what they need; CONSTRAINTS, the lock without its hashes, keeps it so.
CONSTRAINTS := $(VENV)/.constraints.txt
$(RUNTIME): $(LOCK) $(CHOICE)
	@test -x "$(PY)" || "$(PYTHON)" -m venv $(VENV)
	@build=$$(printf %s '$(SPCONV)' | sed 's/^spconv//; s/[^a-z0-9-].*//'); \
	"$(PY)" -m pip list --disable-pip-version-check --format freeze | sed -n 's/==.*//; /^spconv/p; /^cumm/p' | \
	  grep -vxF -e "spconv$$build" -e "cumm$$build" | xargs -r "$(PY)" -m pip uninstall --quiet --yes
	$(STEP) "python packages" $(PIP_INSTALL) --require-hashes -r $(LOCK)
	@sed -n 's/^\([a-z][^\\]*[^\\ ]\).*/\1/p' $(LOCK) >$(CONSTRAINTS)
	$(STEP) "torch and spconv" $(PIP_INSTALL) --constraint $(CONSTRAINTS) '$(TORCH)' '$(SPCONV)'
	$(call keep,TORCH SPCONV) >$(ASKED)
	@touch $@

$(DEV): $(DEV_LOCK) $(RUNTIME)
	$(STEP) "development packages" $(PIP_INSTALL) --require-hashes -r $(DEV_LOCK)
	@touch $@

# NVIDIA's compiler from wheels, in a folder of its own: it is no part of what torch has brought along. One is for this
# environment's ops, the other for `make cuda-compiles`. The linker looks for the library's name without a version.
NVCC := $(VENV)/nvcc/.stamp
NVCC_TO_CHECK := build/nvcc/.stamp
NVCC_LOCK := requirements/lock-nvcc.txt
$(NVCC) $(NVCC_TO_CHECK): $(NVCC_LOCK) | $(RUNTIME)
	@rm -rf $(@D)
	$(STEP) "CUDA compiler" $(PIP_INSTALL) --no-deps --require-hashes --target $(@D) -r $(NVCC_LOCK)
	@ln -s libcudart.so.13 $(@D)/nvidia/cu13/lib/libcudart.so
	@touch $@

# The library lies in the checkout, whichever environment it was built for.
$(BUILT_FOR): FORCE
	$(call record,"$(PY)" $(if $(FORCE_CUDA),FORCE_CUDA=$(FORCE_CUDA)))

$(LIBRARY): $(OPS_SOURCES) $(RUNTIME) $(BUILT_FOR)
	@wanted=$$(FORCE_CUDA='$(FORCE_CUDA)' "$(PY)" tools/wants_nvcc.py) || exit 1; \
	test "$$wanted" = no || $(MAKE) --no-print-directory $(NVCC)
	$(STEP) "native ops" env FORCE_CUDA='$(FORCE_CUDA)' "$(PY)" setup.py --quiet build_ext --inplace
	$(call keep,FORCE_CUDA) >$(ASKED_OPS)
	@touch $@

quickstart: setup
	@cd tools && "$(PY)" quickstart.py --data $(DATA) $(if $(DETECTOR),--detector $(DETECTOR)) --seeds $(SEEDS) --jobs $(JOBS)

lab: setup
	@cd tools && "$(PY)" experiment.py --plan cfgs/experiments/lab_$(or $(DETECTOR),pointpillar).yaml --jobs $(JOBS)

test: setup $(DEV)
	$(PYTEST) -n $(JOBS) --dist loadscope --no-loadscope-reorder \
	  --cov --cov-report term:skip-covered --cov-fail-under 85 -m "not gpu"

lint: $(DEV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -r $(VENV)/bin/clang-format --dry-run -Werror

cuda-compiles: $(RUNTIME) $(NVCC_TO_CHECK)
	"$(PY)" tools/dev/check_cuda_compiles.py --jobs $(JOBS)

bench: setup $(DEV)
	mkdir -p output/bench
	cd tools/benchmarks && for script in bm_*.py; do \
	  "$(PY)" $$script --json "$(CURDIR)/output/bench/$${script%.py}.json" || exit 1; done
	"$(PY)" tools/benchmarks/summarise.py

# A copy of the package with its own library, so that the one in use stays as it is. Python itself is not instrumented:
# the sanitizers' libraries are loaded ahead of it (with libstdc++, whose exceptions they watch), and leaks, which are
# Python's and torch's, are not counted.
SANITIZED := build/sanitize
SANITIZED_LIBRARY := $(SANITIZED)/lib/pcdet/ops/_C.so
WITH_SANITIZERS = LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so.6)" \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

$(SANITIZED_LIBRARY): $(OPS_SOURCES) $(shell find pcdet -name '*.py') $(RUNTIME) $(BUILT_FOR)
	$(STEP) "native ops with sanitizers" env PCDET_SANITIZE=address,undefined FORCE_CUDA=0 \
	  "$(PY)" setup.py --quiet build --build-lib $(SANITIZED)/lib --build-temp $(SANITIZED)/temp
	@touch $@

sanitize: $(DEV) $(SANITIZED_LIBRARY)
	cd $(SANITIZED)/lib && $(WITH_SANITIZERS) \
	  $(PYTEST) -p no:cacheprovider -n $(JOBS) --dist loadscope -m "not gpu" "$(CURDIR)/tests/ops"

# The CUDA kernels compiled for the CPU. EMULATED chooses the tests, an expression of pytest's marks: EMULATED=gpu runs the
# slow ones too. $(call emulated,MODE) builds a library; $(call with_emulated,MODE) is the environment that names it.
MODE ?= plain
SCHEDULES ?= 0
EMULATED ?= gpu and not slow
EMULATOR := build/cuda_emulator
emulated = $(STEP) "CUDA kernels for the CPU ($(1))" \
  "$(PY)" tools/dev/cuda_emulator/build.py --mode $(1) --jobs $(JOBS)
with_emulated = PCDET_CUDA_EMULATOR="$(CURDIR)/$(EMULATOR)/$(1)/libcuda_emulator.so"
cuda-emulated: setup $(DEV)
	$(call emulated,$(MODE))
	@for seed in $(SCHEDULES); do \
	  echo "threads and blocks in order $$seed"; \
	  $(call with_emulated,$(MODE)) CUDA_EMULATOR_SEED=$$seed $(PYTEST) -n $(JOBS) --dist loadscope -m "$(EMULATED)" || exit 1; \
	done

cuda-watch: setup $(DEV)
	$(call emulated,plain)
	$(call emulated,watched)
	$(call emulated,sanitized)
	"$(PY)" tools/dev/cuda_emulator/barriers.py
	$(call with_emulated,watched) $(PYTEST) -n $(JOBS) --dist loadscope -m "$(EMULATED)"
	$(call with_emulated,sanitized) $(WITH_SANITIZERS) $(PYTEST) -n $(JOBS) --dist loadscope -m "$(EMULATED)"

soak: setup $(DEV)
	@cd tests && "$(PY)" -m soak --seconds $(SECONDS) --seed $(SEED) $(if $(JSON),--json "$(abspath $(JSON))")

# The groups that FUZZ leaves, readers and ops or one of them, share the time; both are run, whatever the first one
# finds. The library with sanitizers is built for ops alone.
FUZZ_GROUPS := build/fuzz_groups
RUN_FUZZ = "$(PY)" -m fuzz --seconds $$seconds --jobs $(JOBS) --json "$(CURDIR)/output/fuzz/counts.jsonl" $(FUZZ)
FUZZ_OPS_WITH := $(if $(filter-out 0,$(SANITIZE)),PYTHONPATH="$(CURDIR)/$(SANITIZED)/lib" PYTHONDONTWRITEBYTECODE=1 \
  $(WITH_SANITIZERS),PYTHONPATH="$(CURDIR)")
fuzz: setup $(DEV)
	@mkdir -p $(dir $(FUZZ_GROUPS)); cd tests && PYTHONPATH="$(CURDIR)" "$(PY)" -m fuzz --groups $(FUZZ) >../$(FUZZ_GROUPS)
	@test "$(SANITIZE)" = 0 || ! grep -q ops $(FUZZ_GROUPS) || $(MAKE) --no-print-directory $(SANITIZED_LIBRARY)
	@cd tests && failed=0 groups="$$(cat ../$(FUZZ_GROUPS))"; \
	case "$$groups" in *" "*) seconds=$$(( ($(SECONDS) + 1) / 2 )) ;; *) seconds=$(SECONDS) ;; esac; \
	case "$$groups" in *readers*) PYTHONPATH="$(CURDIR)" $(RUN_FUZZ) --group readers || failed=1 ;; esac; \
	case "$$groups" in *ops*) $(FUZZ_OPS_WITH) $(RUN_FUZZ) --group ops || failed=1 ;; esac; \
	exit $$failed

# Uses the interpreter it is given as it is: the machine's own torch, nothing is installed. CHECK='--budget 300' and the
# like go to the command; what it builds is not the library of .venv, which a later setup builds again.
CHECK ?=
gpu-check:
	@rm -f $(BUILT_FOR)
	"$(PYTHON)" tools/dev/gpu_check $(CHECK)

# The tools of the next two targets.
TOOLS_STAMP := $(TOOLS)/.stamp
$(TOOLS_STAMP): $(TOOLS_LOCK)
	@test -x $(TOOLS)/bin/python || "$(PYTHON)" -m venv $(TOOLS)
	$(STEP) "tools" $(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
	  --require-hashes -r $(TOOLS_LOCK)
	@touch $@

sbom: setup $(DEV) $(TOOLS_STAMP)
	@mkdir -p output
	"$(PY)" tools/dev/software_bill.py --tools $(TOOLS)/bin --sbom output/sbom.cdx.json --licences docs/LICENCES.md

# A development lock holds the runtime lock as it is: it is made under its versions.
LOCK_FLAGS ?=
UV_COMPILE := $(TOOLS)/bin/uv pip compile --quiet $(LOCK_FLAGS) --custom-compile-command "make lock-versions" \
  --generate-hashes --only-binary :all: --no-strip-markers --python-platform linux --annotation-style line \
  --no-emit-package torch --no-emit-package spconv --no-emit-package cumm --excludes requirements/cuda.txt
lock-versions: $(TOOLS_STAMP)
	for python in 3.10 3.11 3.12; do \
	  $(UV_COMPILE) --python-version $$python -o requirements/lock-py$$python.txt \
	    requirements.txt requirements/not-locked.txt && \
	  $(UV_COMPILE) --python-version $$python -o requirements/lock-dev-py$$python.txt \
	    --constraints requirements/lock-py$$python.txt requirements.txt requirements-dev.txt requirements/not-locked.txt && \
	  $(UV_COMPILE) --python-version $$python -o requirements/lock-tools-py$$python.txt requirements-tools.txt || exit 1; \
	done
	$(UV_COMPILE) --python-version 3.10 -o $(NVCC_LOCK) requirements-nvcc.txt

clean:
	rm -rf build pcdet/ops/*.so
