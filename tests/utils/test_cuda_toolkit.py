"""Which nvcc builds the CUDA ops, with toolkits that are a script and one empty header."""

import sys

import pytest

from pcdet.utils import cuda_toolkit
from pcdet.utils.cuda_toolkit import ToolkitError, find_toolkits, fitting_toolkit


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without toolkits; ``machine(folder, release)`` adds one."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "on_path/bin"))
    monkeypatch.setattr(cuda_toolkit, "USUAL_HOME", tmp_path / "usual")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))

    def add(folder, release, headers="include"):
        home = tmp_path / folder
        (home / "bin").mkdir(parents=True)
        nvcc = home / "bin/nvcc"
        nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n")
        nvcc.chmod(0o755)
        if headers:
            (home / headers).mkdir(parents=True)
            (home / headers / "cuda_runtime.h").touch()
        return home

    return add


WHEELS = "environment/nvcc/nvidia/cu13"


def test_a_machine_without_toolkits_has_none(machine):
    assert find_toolkits() == [] and fitting_toolkit("13.0") is None


def test_the_path_is_preferred_to_the_usual_place_and_that_to_the_wheels(machine):
    homes = [machine("on_path", "13.2"), machine("usual", "13.0"), machine(WHEELS, "13.0")]
    assert [toolkit.home for toolkit in find_toolkits()] == homes
    assert fitting_toolkit("13.0") == (homes[0], "13.2")


def test_a_toolkit_of_another_major_version_is_passed_over_for_one_that_fits(machine):
    machine("on_path", "12.4")
    machine("usual", "11.8")
    wheels = machine(WHEELS, "13.0")
    assert fitting_toolkit("13.2") == (wheels, "13.0")
    assert fitting_toolkit("12.6").release == "12.4"
    assert fitting_toolkit("14.0") is None


def test_an_nvcc_on_the_path_without_headers_beside_it_is_a_script_or_a_link_and_no_toolkit(machine, tmp_path):
    script = machine("on_path", "13.0", headers=None)
    assert find_toolkits() == []
    real = machine("elsewhere", "13.0")
    (script / "bin/nvcc").unlink()
    (script / "bin/nvcc").symlink_to(real / "bin/nvcc")
    assert [toolkit.home for toolkit in find_toolkits()] == [real]


def test_headers_may_lie_where_conda_puts_them(machine):
    home = machine("on_path", "12.6", headers="targets/x86_64-linux/include")
    assert fitting_toolkit("12.6").home == home


def test_an_nvcc_that_does_not_run_is_no_toolkit(machine):
    nvcc = machine("usual", "13.0") / "bin/nvcc"
    nvcc.write_text("#!/nowhere\n")
    assert find_toolkits() == []


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_what_cuda_home_names_is_the_only_one(machine, monkeypatch, variable):
    machine("usual", "13.0")
    named = machine("named", "13.1")
    monkeypatch.setenv(variable, str(named))
    assert [toolkit.home for toolkit in find_toolkits()] == [named]
    assert fitting_toolkit("13.0").home == named
    with pytest.raises(
        ToolkitError, match=r"a toolkit of CUDA 12, as torch is built for CUDA 12.6; .*named has nvcc 13.1"
    ):
        fitting_toolkit("12.6")


def test_a_cuda_home_without_nvcc_is_refused_though_another_toolkit_would_fit(machine, monkeypatch, tmp_path):
    machine("usual", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nothing"))
    with pytest.raises(ToolkitError, match="nothing has no bin/nvcc with the headers beside it. Name another one"):
        fitting_toolkit("13.0")
