"""The package as it is installed: what it carries, its commands, and where they read and write without a checkout."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pcdet.testing import tiny_kitti


@pytest.fixture(scope="module")
def built(repo_root, tmp_path_factory):
    """A folder with ``lib``, the files of the wheel, and ``pcdet.egg-info``, its facts; the ops are the checkout's."""
    folder = tmp_path_factory.mktemp("built")
    command = ["egg_info", "--egg-base", folder, "build_py", "--build-lib", folder / "lib"]
    run_python("setup.py", "--quiet", *command, cwd=repo_root)
    (library,) = (repo_root / "pcdet/ops").glob("_C*.so")
    shutil.copy(library, folder / "lib/pcdet/ops")
    return folder


def run_python(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def section(text, name):
    """The lines of a section of entry_points.txt."""
    return text.split(f"[{name}]\n")[1].split("\n[")[0].split("\n")


def test_every_command_calls_a_main_function(built):
    lines = section((built / "pcdet.egg-info/entry_points.txt").read_text(), "console_scripts")
    commands = dict(line.split(" = ") for line in lines if line)
    names = ("train", "train-kd", "kd-measure", "test", "compare", "audit", "demo", "doctor")
    assert sorted(commands) == sorted(f"pcdet-{name}" for name in names)
    for target in commands.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), target


def test_what_requirements_txt_names_is_required_except_what_builds_the_ops(built, repo_root):
    required = (built / "pcdet.egg-info/requires.txt").read_text()
    for line in (repo_root / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name = line.split("=")[0].split(">")[0]
            assert (f"{name}=" in required or f"{name}>" in required or f"{name}<" in required) == (
                name not in ("ninja", "setuptools", "wheel")
            ), name


def test_model_files_and_lists_of_frames_are_those_of_the_checkout(built, repo_root):
    for carried, source in (("cfgs", "tools/cfgs"), ("data/kitti/ImageSets", "data/kitti/ImageSets")):
        pattern = "*.yaml" if carried == "cfgs" else "*.txt"
        files = sorted(path.relative_to(repo_root / source) for path in (repo_root / source).rglob(pattern))
        assert files
        for file in files:
            assert (built / "lib/pcdet" / carried / file).read_bytes() == (repo_root / source / file).read_bytes()


def test_the_files_of_an_audits_page_are_carried(built, repo_root):
    files = [f for f in (repo_root / "pcdet/audit/page").iterdir() if f.suffix in (".html", ".css", ".js")]
    assert len(files) == 6
    for file in files:
        assert (built / "lib/pcdet/audit/page" / file.name).read_bytes() == file.read_bytes()


TRAIN = "from pcdet.cli.train import main; main()"


def test_without_a_checkout_a_training_reads_shipped_files_and_writes_below_the_working_directory(built, tmp_path):
    tiny_kitti(tmp_path / "data/simulated_kitti", frames=6)

    def call(*command):
        return run_python(*command, cwd=tmp_path, PYTHONPATH=str(built / "lib"))

    places = call("-c", "import pcdet; from pcdet.config import cfg; print(pcdet.__file__, cfg.ROOT_DIR, sep='\\n')")
    assert [Path(line) for line in places.split()] == [built / "lib/pcdet/__init__.py", tmp_path]
    create = ("-m", "pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos")
    call(*create, "cfgs/dataset_configs/simulated_kitti_dataset.yaml", "--workers", "1")
    flags = ["--workers", "0", "--device", "cpu", "--threads", "1", "--epochs", "1", "--batch_size", "2"]
    small = ["--set", "MODEL.WIDTH", "0.125"]
    log = call("-c", TRAIN, "--cfg_file", "cfgs/simulated_models/pointpillar.yaml", *flags, *small)
    out = tmp_path / "output/simulated_models/pointpillar/default"
    assert (out / "ckpt/checkpoint_epoch_1.pth").is_file() and (out / "pointpillar.yaml").is_file()
    assert "EPOCH 1 EVALUATION" in log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "output"]


@pytest.mark.parametrize("jobs, units", [("", 2), ("16", 6)])
def test_max_jobs_divides_the_sources_among_more_compilers(repo_root, tmp_path, jobs, units):
    """On a machine of 16 processors two units would keep two of them busy; each source is in one unit."""
    shutil.copytree(repo_root / "pcdet", tmp_path / "pcdet", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "requirements.txt"):
        shutil.copy(repo_root / name, tmp_path)
    run_python("setup.py", "--quiet", "--name", cwd=tmp_path, MAX_JOBS=jobs, FORCE_CUDA="0")
    found = [file.read_text().splitlines() for file in (tmp_path / "build/units").glob("ops_cpp_*.cpp")]
    included = [line for lines in found for line in lines]
    assert len(found) == units and len(included) == len(set(included))
    assert len(included) == len(list(tmp_path.glob("pcdet/ops/**/src/*.cpp")))
