"""Nothing reaches for the network once everything is installed: commands in a network namespace without interfaces."""

import functools
import importlib.metadata
import json
import os
import pkgutil
import subprocess
import sys

import pytest
from support.warm_python import WarmPython

import pcdet

# Brings the loopback interface up, as two processes of one training need it, then becomes the command.
LAUNCHER = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
    fcntl.ioctl(link, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
os.execv(sys.argv[1], sys.argv[1:])
"""
ISOLATED = ["unshare", "--map-root-user", "--net", sys.executable, "-c", LAUNCHER]
DRAW = """
import matplotlib.pyplot as plt
plt.figure().text(0.5, 0.5, "a font is looked up").figure.canvas.draw()
"""
REACH_OUT = """
import socket
for address in ("192.0.2.1", "2001:db8::1"):
    try:
        socket.create_connection((address, 80), timeout=5)
    except OSError as error:
        print(error)
"""
FLAGS = ["--workers", "0", "--device", "cpu"]


@functools.cache
def why_not() -> str:
    """Why namespaces cannot be had here; empty if they can."""
    try:
        done = subprocess.run([*ISOLATED, sys.executable, "-c", ""], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return str(error)
    return done.stderr.strip()


@pytest.fixture(scope="module")
def offline(tmp_path_factory, repo_root):
    """Output of a Python command without a network; empty caches when the first one starts."""
    if reason := why_not():
        pytest.skip(f"no network namespace can be made here: {reason}")
    folders = ("HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCH_HOME", "TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME")
    caches = tmp_path_factory.mktemp("offline")
    environment = os.environ | {name: str(caches / name.lower()) for name in folders}
    interpreter = WarmPython(ISOLATED, environment)

    def run_offline(*arguments, cwd=repo_root):
        with interpreter.start(arguments, cwd=cwd, env=environment) as command:
            text = command.stdout.read()
            assert command.wait(600) == 0, text[-12000:]
        return text

    yield run_offline
    interpreter.close()


def test_the_namespace_has_no_network(offline):
    assert offline("-c", REACH_OUT).count("unreachable") == 2


def test_every_module_is_imported_and_a_picture_drawn(offline):
    """The interpreter that runs the commands has imported them all, without a network too."""
    imported = json.loads(offline("-c", "import json, sys; print(json.dumps(list(sys.modules)))"))
    packages = pkgutil.walk_packages(pcdet.__path__, "pcdet.")
    assert {package.name for package in packages} - set(imported) <= {
        "pcdet.ops._C",
        "pcdet.datasets.simulated.__main__",
    }
    offline("-c", DRAW)


def test_the_doctor_finds_all_that_training_needs(offline):
    assert "all that training needs is here" in offline("-m", "pcdet.doctor")


def test_a_network_is_trained_and_tested(offline, cfg_file, tools, tmp_path):
    out = tmp_path / "out"
    offline("train.py", "--cfg_file", cfg_file, "--output_dir", out, "--epochs", 1, *FLAGS, cwd=tools)
    checkpoint = out / "ckpt/checkpoint_epoch_1.pth"
    log = offline(
        "test.py", "--cfg_file", cfg_file, "--ckpt", checkpoint, "--output_dir", tmp_path / "test", *FLAGS, cwd=tools
    )
    assert "Car AP_R40@0.70, 0.70, 0.70:" in log


def test_the_installed_packages_suit_each_other(offline):
    # Looked up, not imported: before Python 3.12, a process that has imported pip cannot import setuptools any more
    # without a DeprecationWarning, and Inductor's tests import it in the same process.
    if not any(importlib.metadata.distributions(name="pip")):
        pytest.skip("pip is not installed")
    assert "No broken requirements found" in offline("-m", "pip", "check")


def test_pytest_runs_and_two_processes_find_each_other(offline):
    claim = "tests/engine/test_dist.py::test_both_ranks_train_the_same_weights_and_rank_0_saves_them"
    assert "1 passed" in offline("-m", "pytest", "-q", "-p", "no:cacheprovider", claim)
