"""The doctor: it names what is missing and what to do, whatever is missing."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types

import pytest

from pcdet.cli import doctor
from pcdet.utils.cpu_features import Processor


@pytest.fixture
def advice() -> list[doctor.Advice]:
    return []


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


def test_without_torch_it_says_where_to_get_it():
    done = blocked("torch")
    assert done.returncode == 1 and not done.stderr
    assert "TO DO: torch does not import" in done.stdout and "docs/INSTALL.md" in done.stdout


def test_the_processor_is_described_without_torch_with_what_is_hidden_and_what_use_amp_would_be(advice, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
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
        facts = doctor._processor(advice)
        assert list(facts) == ["model", "instruction sets", "hidden", "with --use_amp"] and not advice
        for value, start in zip(facts.values(), expected, strict=True):
            assert value.startswith(start)


def test_without_the_native_ops_it_says_how_to_build_them():
    done = run_doctor(
        "import torch\ndef unloadable(path):\n    raise OSError(f'{path}: undefined symbol')\n"
        "torch.ops.load_library = unloadable\n"
    )
    assert done.returncode == 1 and not done.stderr
    assert "TO DO: the native ops do not load: python setup.py build_ext --inplace" in done.stdout


def test_a_missing_package_and_a_wrong_python_are_needed(advice, monkeypatch):
    monkeypatch.setattr(doctor, "REQUIRED", ("numpy", "no_such_package"))
    monkeypatch.setattr(doctor, "OPTIONAL", {"no_such_extra": "pictures"})
    facts = doctor._packages(advice)
    assert facts["no_such_package"] == "missing" and facts["no_such_extra"] == "missing (pictures)"
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    doctor._system(advice)
    assert [a.needed for a in advice] == [True, True]
    assert not doctor.Report({}, advice).healthy


def test_kernels_are_listed_by_backend():
    ops = {"pcdet::a": {"CPU"}, "pcdet::b": {"CPU", "CUDA"}, "aten::c": {"CPU"}}
    fake = types.SimpleNamespace(
        _C=types.SimpleNamespace(
            _dispatch_get_all_op_names=lambda: list(ops),
            _dispatch_has_kernel_for_dispatch_key=lambda name, key: key in ops[name],
        )
    )
    assert doctor._kernels(fake) == {"pcdet::a": ["CPU"], "pcdet::b": ["CPU", "CUDA"]}


def fake_torch(cuda: str | None, available: bool) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        __version__="9.9",
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


def test_a_gpu_is_described_and_a_mismatched_nvcc_named(advice, monkeypatch):
    use_torch(monkeypatch, fake_torch("12.6", available=True))
    monkeypatch.setattr(doctor, "_nvcc_version", lambda: "13.0")
    facts = doctor._torch(advice)
    assert facts["device 0"] == "H200 (sm_90)" and "nvcc 13.0 cannot build" in advice[0].text


def test_a_driver_that_torch_cannot_use_is_named(advice, monkeypatch):
    use_torch(monkeypatch, fake_torch(None, available=False))
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_nvcc_version", lambda: None)
    doctor._torch(advice)
    assert "install a CUDA build of torch" in advice[0].text and not advice[0].needed


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
def test_the_build_of_spconv_is_judged(advice, monkeypatch, builds, gpu, said):
    installed = [types.SimpleNamespace(metadata={"Name": n}, version=v) for n, v in [*builds, ("numpy", "2")]]
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: installed)
    monkeypatch.setattr(doctor, "_torch_sees_a_gpu", lambda: gpu)
    facts = doctor._spconv(advice)
    assert "numpy" not in facts
    assert said is None and not advice or said in advice[0].text
    if ("spconv-cu120", "2.3.6") in builds:
        assert facts["spconv-cu120"] == "2.3.6 (CUDA 12.0)"


def test_more_threads_than_cores_are_named(advice, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch(None, available=False))
    facts = doctor._threads(advice)
    assert facts["torch"] == "999" and "set OMP_NUM_THREADS" in advice[0].text


def test_no_nvcc_is_no_version(monkeypatch):
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: None)
    assert doctor._nvcc_version() is None
