"""Which ops ``setup.py`` builds: run under a torch that says which CUDA it is built for, and without toolkits."""

import os
import runpy
import sys

import pytest
import torch

from pcdet.utils import cuda_toolkit


@pytest.fixture
def run_setup(monkeypatch, repo_root, tmp_path):
    """run_setup(cuda, **environment): ``setup.py --version``, which builds nothing; returns the module's names."""
    for name in ("CUDA_HOME", "CUDA_PATH", "FORCE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cuda_toolkit, "USUAL_HOME", tmp_path / "usual")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["setup.py", "--version"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(repo_root)

    def run(cuda, **environment):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path("setup.py")

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
    with pytest.raises(SystemExit, match=said):
        run_setup(cuda, **environment)


def test_without_a_fitting_nvcc_the_cpu_ops_are_built_and_it_is_said(run_setup, capsys):
    assert run_setup("13.0")["WITH_CUDA"] is False
    assert "only the CPU ops are built: torch " in capsys.readouterr().err


@pytest.mark.parametrize(("cuda", "environment"), [(None, {}), ("13.0", {"FORCE_CUDA": "0", "CUDA_HOME": "/none"})])
def test_ops_for_the_cpu_alone_need_no_words(run_setup, cuda, environment, capsys):
    assert run_setup(cuda, **environment)["WITH_CUDA"] is False
    assert capsys.readouterr().err == ""


def test_the_toolkit_that_fits_becomes_the_one_of_torch(run_setup, tmp_path):
    """A CPU build of torch cannot make an extension with CUDA: the choice alone is looked at."""
    home = tmp_path / "nvcc/nvidia/cu13"
    for file in ("bin/nvcc", "include/cuda_runtime.h"):
        (home / file).parent.mkdir(parents=True)
        (home / file).touch()
    (home / "bin/nvcc").write_text("#!/bin/sh\necho 'release 13.0, V13.0.88'\n")
    (home / "bin/nvcc").chmod(0o755)
    choose_cuda = run_setup(None)["choose_cuda"]
    torch.version.cuda = "13.0"
    assert choose_cuda() and os.environ["CUDA_HOME"] == str(home)
