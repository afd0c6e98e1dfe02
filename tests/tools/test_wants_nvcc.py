"""Whether `make setup` installs NVIDIA's compiler: the rule of ``tools/wants_nvcc.py``."""

import sys
from pathlib import Path

import pytest

from pcdet.utils.cuda_toolkit import Toolkit

WHEELS, USUAL = Path("/environment/nvcc/nvidia/cu13"), Path("/usr/local/cuda")


@pytest.fixture
def wants(tool, monkeypatch):
    """wants(cuda, forced, has_driver, fitting=home or None) -> the answer."""
    monkeypatch.setattr(sys, "prefix", "/environment")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    module = tool("wants_nvcc")

    def ask(cuda, forced="", has_driver=True, fitting=None):
        toolkit = Toolkit(fitting, cuda) if fitting else None
        monkeypatch.setattr(module, "fitting_toolkit", lambda asked: toolkit)
        return module.wants_nvcc(cuda, forced, has_driver)

    return ask


def test_a_driver_without_a_fitting_toolkit_wants_it(wants):
    assert wants("13.0")


def test_a_machine_without_a_driver_downloads_nothing_unless_it_is_told_to_build_with_cuda(wants):
    assert not wants("13.0", has_driver=False)
    assert wants("13.0", forced="1", has_driver=False)


def test_a_toolkit_that_fits_is_used(wants):
    assert not wants("13.0", fitting=USUAL)


def test_wheels_in_use_are_kept_up_to_date(wants):
    assert wants("13.0", fitting=WHEELS)


def test_a_torch_without_cuda_and_ops_for_the_cpu_alone_want_none(wants):
    assert not wants(None)
    assert not wants(None, forced="1")  # setup.py says what is wrong
    assert not wants("13.0", forced="0")
    assert not wants("12.6", forced="0")


def test_cuda_home_leaves_the_choice_to_the_caller(wants, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    assert not wants("13.0") and not wants("12.6")


def test_a_torch_of_cuda_12_without_a_toolkit_is_refused_with_the_ways_out(wants):
    with pytest.raises(SystemExit) as stop:
        wants("12.6")
    for part in ("torch is built for CUDA 12.6", "nvcc 12 is neither on", "CUDA_HOME", "make setup FORCE_CUDA=0"):
        assert part in str(stop.value)
    assert not wants("12.6", fitting=USUAL)
