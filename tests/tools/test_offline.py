"""Nothing reaches for the network once everything is installed: commands in a network namespace without interfaces."""

import functools
import os
import subprocess
import sys

import pytest

# Brings the loopback interface up, as two processes of one training need it, then becomes the command.
LAUNCHER = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
    fcntl.ioctl(link, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
os.execv(sys.argv[1], sys.argv[1:])
"""
ISOLATED = ["unshare", "--map-root-user", "--net", sys.executable, "-c", LAUNCHER]
IMPORT_ALL = """
import importlib, pkgutil, pcdet
for module in pkgutil.walk_packages(pcdet.__path__, "pcdet."):
    if module.name.rpartition(".")[2] not in ("_C", "__main__"):  # _C, the ops' library, is loaded by pcdet.ops
        importlib.import_module(module.name)
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


@pytest.fixture
def offline(tmp_path, repo_root):
    """Output of a Python command without a network and with empty caches."""
    if reason := why_not():
        pytest.skip(f"no network namespace can be made here: {reason}")
    folders = ("HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCH_HOME", "TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME")
    caches = {name: str(tmp_path / name.lower()) for name in folders}

    def run_offline(*arguments, cwd=repo_root):
        done = subprocess.run(
            [*ISOLATED, sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=os.environ | caches,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-12000:]
        return done.stdout + done.stderr

    return run_offline


def test_the_namespace_has_no_network(offline):
    assert offline("-c", REACH_OUT).count("unreachable") == 2


def test_every_module_is_imported_and_a_picture_drawn(offline):
    offline("-c", IMPORT_ALL)


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
    pytest.importorskip("pip")
    assert "No broken requirements found" in offline("-m", "pip", "check")


def test_pytest_runs_and_two_processes_find_each_other(offline):
    claim = "tests/engine/test_dist.py::test_both_ranks_train_the_same_weights_and_rank_0_saves_them"
    assert "1 passed" in offline("-m", "pytest", "-q", "-p", "no:cacheprovider", claim)
