"""What the benchmarks know of the device that they measure, and their rehearsal at small sizes."""

import json
import time

import pytest
from commands import run


@pytest.fixture
def device_class(tool):
    return tool("benchmarks/_device").Device


def test_marks_on_a_cpu_are_its_clock(device_class):
    device = device_class("cpu")
    first = device.mark()
    time.sleep(0.02)
    assert 20 <= device.ms_between(first, device.mark()) < 2000
    assert device.peak() is None and device.card == "cpu"


@pytest.mark.parametrize(
    "name, library, message",
    [
        ("tpu", None, "device must be one of cpu, cuda, emulated, got 'tpu'"),
        ("emulated", None, "set PCDET_CUDA_EMULATOR to its path"),
    ],
)
def test_a_device_that_is_not_there_is_named(device_class, monkeypatch, name, library, message):
    monkeypatch.delenv("PCDET_CUDA_EMULATOR", raising=False)
    with pytest.raises(ValueError, match=message):
        device_class(name)


def test_a_rehearsal_is_no_figure(tools, tmp_path):
    """Its cases are named so that no table of goals takes them for what they stand for."""
    file = tmp_path / "bm_iou3d_nms.json"
    run(["bm_iou3d_nms.py", "--small", "--repeats", "1", "--json", file], cwd=tools / "benchmarks")
    cases = {row["case"] for row in json.loads(file.read_text())["rows"]}
    assert len(cases) == 10 and all(case.startswith("rehearsal at small sizes: rotated") for case in cases)


def test_a_benchmark_of_an_unknown_device_says_so(tools):
    text = run(["bm_iou3d_nms.py", "--device", "tpu"], cwd=tools / "benchmarks", code=2)
    assert "device must be one of cpu, cuda, emulated, got 'tpu'" in text
