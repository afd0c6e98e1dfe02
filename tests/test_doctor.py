"""The doctor: it names what is missing and what to do, whatever is missing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types

import pytest

from pcdet.cli import doctor
from pcdet.utils.cpu_features import Processor


def texts(report: doctor.Report) -> str:
    return "\n".join(advice.text for advice in report.advice)


def test_a_complete_installation_is_healthy(capsys):
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert "pcdet::nms" in text and "torch" in text and text.rstrip().endswith("all that training needs is here")


def test_json_holds_the_same(capsys):
    assert doctor.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] and set(found["sections"]) >= {
        "system",
        "processor",
        "packages",
        "torch",
        "native ops",
        "spconv",
    }


def blocked(*names: str) -> subprocess.CompletedProcess:
    """The doctor in a fresh interpreter in which these modules do not import."""
    return run_doctor(f"import sys\nsys.modules.update(dict.fromkeys({names!r}))\n")


def run_doctor(before: str) -> subprocess.CompletedProcess:
    """The doctor in a process of its own, after some lines of Python."""
    code = before + "import sys\nfrom pcdet.cli.doctor import main\nsys.exit(main([]))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=doctor.REPO_ROOT
    )


def test_an_installed_package_is_not_sent_to_files_of_the_checkout(monkeypatch):
    """A wheel brings no setup.py, Makefile or requirements.txt."""
    monkeypatch.setattr("pcdet.utils.places.INSTALLED", True)
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-package",))
    monkeypatch.setitem(sys.modules, "pcdet.ops", None)
    found = texts(doctor.examine())
    assert "no-such-package is missing: pip install no-such-package" in found
    assert "the native ops do not load: pip wheel ." in found
    assert not any(name in found for name in ("setup.py", "make setup", "requirements.txt"))


def test_without_torch_it_says_where_to_get_it():
    done = blocked("torch")
    assert done.returncode == 1 and not done.stderr
    assert "TO DO: torch does not import" in done.stdout and "docs/INSTALL.md" in done.stdout


def test_the_processor_is_described_without_torch_with_what_is_hidden_and_what_use_amp_would_be(monkeypatch):
    for name in ("torch", "pcdet.ops"):
        monkeypatch.setitem(sys.modules, name, None)
    sapphire_rapids = Processor(
        "Xeon", ("AVX2", "AVX512_BF16", "AMX-BF16"), hidden={"AMX-BF16": "ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16"}
    )
    for processor, expected in (
        (
            Processor("EPYC", ("AVX2",)),
            ["EPYC", "AVX2", "none", "float32, contiguous maps: this processor has no bf16 arithmetic"],
        ),
        (
            sapphire_rapids,
            [
                "Xeon",
                "AVX2, AVX512_BF16, AMX-BF16",
                "AMX-BF16 by ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16",
                "bfloat16, channels-last maps: this processor has bf16 arithmetic (AVX512_BF16)",
            ],
        ),
        (Processor("arm", None), ["arm", "unknown", "none", "float32, contiguous maps: this system does not say"]),
    ):
        monkeypatch.setattr(doctor, "read_processor", lambda processor=processor: processor)
        facts = doctor.examine().sections["processor"]
        assert list(facts) == ["model", "instruction sets", "hidden", "with --use_amp"]
        for value, start in zip(facts.values(), expected, strict=True):
            assert value.startswith(start)


def test_without_the_native_ops_it_says_how_to_build_them():
    done = run_doctor(
        "import torch\ndef unloadable(path):\n    raise OSError(f'{path}: undefined symbol')\n"
        "torch.ops.load_library = unloadable\n"
    )
    assert done.returncode == 1 and not done.stderr
    assert "TO DO: the native ops do not load: python setup.py build_ext --inplace" in done.stdout


def test_a_missing_package_and_a_wrong_python_are_needed(monkeypatch):
    monkeypatch.setattr(doctor, "REQUIRED", ("numpy", "no_such_package"))
    monkeypatch.setattr(doctor, "OPTIONAL", {"no_such_extra": "pictures"})
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    report = doctor.examine()
    facts = report.sections["packages"]
    assert facts["no_such_package"] == "missing" and facts["no_such_extra"] == "missing (pictures)"
    needed = [advice.text for advice in report.advice if advice.needed]
    assert len(needed) == 2 and "Python 3.10 to 3.12" in needed[0] and "no_such_package is missing" in needed[1]
    assert not report.healthy


def test_kernels_are_listed_by_backend(monkeypatch):
    ops = {"pcdet::a": {"CPU"}, "pcdet::b": {"CPU", "CUDA"}, "aten::c": {"CPU"}}
    use_torch(monkeypatch, fake_torch(None, available=False, ops=ops))
    facts = doctor.examine().sections["native ops"]
    assert (facts["pcdet::a"], facts["pcdet::b"]) == ("CPU", "CPU, CUDA") and "aten::c" not in facts


def fake_torch(cuda: str | None, available: bool, ops: dict[str, set[str]] | None = None) -> types.SimpleNamespace:
    """A torch with a GPU or without; ``ops`` are the backends of its kernels."""
    ops = ops or {}
    return types.SimpleNamespace(
        __version__="9.9",
        _C=types.SimpleNamespace(
            _dispatch_get_all_op_names=lambda: list(ops),
            _dispatch_has_kernel_for_dispatch_key=lambda name, key: key in ops[name],
        ),
        version=types.SimpleNamespace(cuda=cuda),
        cuda=types.SimpleNamespace(
            is_available=lambda: available,
            device_count=lambda: 1,
            get_device_capability=lambda i: (9, 0),
            get_device_name=lambda i: "H200",
        ),
        backends=types.SimpleNamespace(
            cudnn=types.SimpleNamespace(version=lambda: 91000),
            cpu=types.SimpleNamespace(get_cpu_capability=lambda: "AVX2"),
        ),
        get_num_threads=lambda: 999,
    )


def use_torch(monkeypatch, torch) -> None:
    real = importlib.import_module
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: torch if name == "torch" else real(name))


def put_nvcc(monkeypatch, folder, release: str) -> None:
    """An nvcc of a release, where CUDA_HOME says."""
    for name in ("bin", "include"):
        (folder / name).mkdir()
    (folder / "include/cuda_runtime.h").touch()
    nvcc = folder / "bin/nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(folder))


def test_a_gpu_is_described_and_a_mismatched_nvcc_named(monkeypatch, tmp_path):
    use_torch(monkeypatch, fake_torch("12.6", available=True))
    put_nvcc(monkeypatch, tmp_path, "13.0")
    report = doctor.examine()
    assert report.sections["torch"]["device 0"] == "H200 (sm_90)"
    assert report.sections["system"]["nvcc"] == f"{tmp_path}/bin/nvcc 13.0"
    assert "nvcc 13.0 cannot build" in texts(report)


def test_a_driver_that_torch_cannot_use_is_named(monkeypatch, tmp_path):
    use_torch(monkeypatch, fake_torch(None, available=False))
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (advice,) = [advice for advice in doctor.examine().advice if "install a CUDA build of torch" in advice.text]
    assert not advice.needed


@pytest.mark.parametrize(
    ("builds", "gpu", "said"),
    [
        ([], False, "spconv is missing"),
        ([("spconv", "2.3.8")], False, None),
        ([("spconv", "2.3.8")], True, "runs on the CPU only"),
        ([("spconv-cu120", "2.3.6")], True, None),
        ([("spconv", "2.3.8"), ("spconv-cu120", "2.3.6")], False, "several builds"),
    ],
)
def test_the_build_of_spconv_is_judged(monkeypatch, builds, gpu, said):
    installed = [types.SimpleNamespace(metadata={"Name": n}, version=v) for n, v in [*builds, ("numpy", "2")]]
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: installed)
    use_torch(monkeypatch, fake_torch("12.6", available=gpu))
    report = doctor.examine()
    facts = report.sections["spconv"]
    assert "numpy" not in facts
    assert said in texts(report) if said else "spconv" not in texts(report)
    if ("spconv-cu120", "2.3.6") in builds:
        assert facts["spconv-cu120"] == "2.3.6 (CUDA 12.0)"


def test_more_threads_than_cores_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch(None, available=False))
    report = doctor.examine()
    assert report.sections["threads"]["torch"] == "999" and "set OMP_NUM_THREADS" in texts(report)


def test_ops_for_the_cpu_alone_are_told_on_a_gpu_with_the_command_that_builds_them(monkeypatch):
    monkeypatch.setattr("pcdet.utils.places.INSTALLED", False)
    use_torch(monkeypatch, fake_torch("13.0", available=True, ops={"pcdet::a": {"CPU"}}))
    assert "the ops are built for the CPU only: make setup FORCE_CUDA=1" in texts(doctor.examine())
    monkeypatch.setattr("pcdet.utils.places.INSTALLED", True)
    assert "the ops are built for the CPU only: FORCE_CUDA=1 pip wheel ." in texts(doctor.examine())
    use_torch(monkeypatch, fake_torch("13.0", available=True, ops={"pcdet::a": {"CPU", "CUDA"}}))
    assert "built for the CPU only" not in texts(doctor.examine())


def test_no_nvcc_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "find_toolkits", list)
    assert doctor.examine().sections["system"]["nvcc"] == "none"
