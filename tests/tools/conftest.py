"""A tiny model file on a tiny data set, and the tools as modules."""

import importlib
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import yaml
from support.tiny_model import write_tiny_model

GPU_CHECK = ("counters", "main", "machine", "outcomes", "progress", "report", "runner", "state", "tasks")


@pytest.fixture(scope="session")
def tools(repo_root):
    return repo_root / "tools"


@pytest.fixture
def tool(tools, monkeypatch):
    """Imports a file of tools/ under a name that is in nobody's way."""
    monkeypatch.syspath_prepend(str(tools))

    def load(name):
        spec = importlib.util.spec_from_file_location(f"tool_{name}", tools / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for a module's names
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def check(tools, monkeypatch):
    """The modules of tools/dev/gpu_check."""
    for folder in (tools / "benchmarks", tools / "dev"):
        monkeypatch.syspath_prepend(str(folder))
    return SimpleNamespace(**{name: importlib.import_module(f"gpu_check.{name}") for name in GPU_CHECK})


@pytest.fixture(scope="session")
def cfg_file(tmp_path_factory):
    """A PointPillars of 2 k weights on a tenth of the usual range, over four training frames and two others."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    kd = {
        "_BASE_CONFIG_": str(folder / "tiny.yaml"),
        "KD": {
            "TEACHER": {"CFG": str(folder / "tiny.yaml"), "CKPT": None},
            "LOSSES": [{"NAME": "PivotalLogit", "CLS_WEIGHT": 1.0, "REG_WEIGHT": 0.1}],
        },
    }
    (folder / "tiny_kd.yaml").write_text(yaml.safe_dump(kd))
    return folder / "tiny.yaml"
