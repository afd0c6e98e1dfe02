"""Which ops ``setup.py`` builds: run under a torch that says which CUDA it is built for, and without toolkits."""

import json
import os
import re

import pytest
from support import warm_python

# A process of its own: which distutils setuptools finds depends on what a process has imported before.
RUN = """
import json, os, runpy, sys
from pathlib import Path
import torch
from pcdet.utils import cuda_toolkit
cuda, empty = json.loads(sys.argv[1]), sys.argv[2]
cuda_toolkit.USUAL_HOME, sys.prefix, sys.argv = Path(empty) / "usual", empty, ["setup.py", "--version"]
torch.version.cuda = cuda
names = runpy.run_path("setup.py")
print("with CUDA:", names["WITH_CUDA"])
"""


@pytest.fixture
def run_setup(repo_root, tmp_path):
    """run_setup(cuda, then, **environment): exit status and output of ``setup.py --version``, which builds nothing.

    ``then`` is code that runs behind it, with the file's names in ``names``.
    """
    clean = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH", "FORCE_CUDA")}

    def run(cuda, then="", **environment):
        args = ["-c", RUN + then, json.dumps(cuda), tmp_path]
        env = {**clean, "PATH": str(tmp_path), **environment}
        with warm_python.shared().start(args, cwd=repo_root, env=env) as command:
            printed = command.stdout.read()
            return command.wait(), printed

    return run


@pytest.mark.parametrize(
    ("cuda", "environment", "said"),
    [
        ("13.0", {"FORCE_CUDA": "yes"}, r"FORCE_CUDA must be 1 .*, 0 .* or not set, got 'yes'"),
        (None, {"FORCE_CUDA": "1"}, "FORCE_CUDA=1, but torch .* has no CUDA. Install a CUDA build of torch"),
        ("13.0", {"FORCE_CUDA": "1"}, "FORCE_CUDA=1, but .* needs nvcc 13, .*: `make setup FORCE_CUDA=1` installs it"),
        ("13.0", {"CUDA_HOME": "/none"}, "CUDA_HOME must name a toolkit of CUDA 13, .*; /none has no bin/nvcc"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_ends_with_what_is_missing(run_setup, cuda, environment, said):
    status, printed = run_setup(cuda, **environment)
    assert status == 1
    assert re.search(said, printed), printed
    assert "Traceback" not in printed


def test_without_a_fitting_nvcc_the_cpu_ops_are_built_and_it_is_said(run_setup):
    status, printed = run_setup("13.0")
    assert (status, printed.splitlines()[-1]) == (0, "with CUDA: False")
    assert "only the CPU ops are built: torch " in printed


@pytest.mark.parametrize(("cuda", "environment"), [(None, {}), ("13.0", {"FORCE_CUDA": "0", "CUDA_HOME": "/none"})])
def test_ops_for_the_cpu_alone_need_no_words(run_setup, cuda, environment):
    status, printed = run_setup(cuda, **environment)
    version, said = printed.splitlines()
    assert (status, said) == (0, "with CUDA: False")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_the_toolkit_that_fits_becomes_the_one_of_torch(run_setup, tmp_path):
    """A CPU build of torch cannot make an extension with CUDA: the choice alone is looked at."""
    home = tmp_path / "nvcc/nvidia/cu13"
    for file in ("bin/nvcc", "include/cuda_runtime.h"):
        (home / file).parent.mkdir(parents=True)
        (home / file).touch()
    (home / "bin/nvcc").write_text("#!/bin/sh\necho 'release 13.0, V13.0.88'\n")
    (home / "bin/nvcc").chmod(0o755)
    then = "torch.version.cuda = '13.0'\nprint(names['choose_cuda'](), os.environ['CUDA_HOME'])"
    status, printed = run_setup(None, then=then)
    assert (status, printed.splitlines()[-1]) == (0, f"True {home}")
