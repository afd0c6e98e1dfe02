"""Fixtures that every test may use, and the names of cases."""

import logging
import os
from collections import Counter
from pathlib import Path

# One thread a process: the suite runs several processes side by side. Set before numpy and torch are imported.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from support import warm_python
from support.case_names import name_of
from support.gpu import gpu_or_none

REPO_ROOT = Path(__file__).resolve().parent.parent


def _folder_named_by(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable} must name a folder, got {value!r}")
    return folder


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of reference numbers (``reference/``, ``kitti_eval/``) named by PCDET_GOLDENS."""
    return _folder_named_by("PCDET_GOLDENS")


@pytest.fixture(scope="session")
def kitti_real() -> Path:
    """A folder of real KITTI frames in the object layout, named by PCDET_KITTI_ROOT."""
    return _folder_named_by("PCDET_KITTI_ROOT")


@pytest.fixture(scope="session")
def nuscenes_root() -> Path:
    """A folder of real nuScenes tables and sweeps, named by PCDET_NUSCENES_ROOT."""
    return _folder_named_by("PCDET_NUSCENES_ROOT")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return REPO_ROOT


def pytest_sessionstart():
    """Registers the emulated device early: autograd makes its threads, one a device, at the first gradient of all."""
    if Path(os.environ.get("PCDET_CUDA_EMULATOR", "")).is_file():  # where it is none, the tests that need it say so
        gpu_or_none()


@pytest.fixture
def gpu(request) -> torch.device:
    """The device of tests marked ``gpu``: a CUDA card, or the emulated one whose library PCDET_CUDA_EMULATOR names."""
    found = gpu_or_none()
    if found is None:
        pytest.skip("no CUDA device, and PCDET_CUDA_EMULATOR is not set (make cuda-emulated)")
    of_cards = request.node.get_closest_marker("card")
    if of_cards and found.type != "cuda":
        pytest.skip(of_cards.args[0])
    return found


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    """Every device that this machine has; cases on the GPU carry the mark ``gpu``."""
    return torch.device("cpu") if request.param == "cpu" else request.getfixturevalue("gpu")


def pytest_collection_modifyitems(items):
    """Files of few tests first; stops where a test marked ``gpu`` does not ask for the device.

    Such a test would pass and have run on no GPU. Files of few tests are those of whole trainings: begun last, they
    would keep one process busy for minutes while the others have nothing left to do.
    """
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])
    for item in items:
        if item.get_closest_marker("gpu") and not {"gpu", "device"} & set(item.fixturenames):
            raise pytest.UsageError(f"{item.nodeid} is marked gpu: take its device from the fixture gpu or device")


@pytest.fixture(scope="session", autouse=True)
def _shared_interpreter_ends():
    yield
    warm_python.close_shared()


@pytest.fixture(autouse=True)
def _plain_logger():
    """Undoes what commands of tests and fixtures before do to the project's logger: caplog would hear nothing of it."""
    logger = logging.getLogger("pcdet")
    logger.handlers[:], logger.level, logger.propagate = [], logging.NOTSET, True


def pytest_make_parametrize_id(config, val, argname):
    """Names a case by its value where pytest would number it."""
    return name_of(val)
