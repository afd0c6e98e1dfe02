"""Tiny trainings on simulated scenes, and what each of them is when nothing disturbs it."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from support.ranks import environment_of, free_port

from soak import faults
from soak.process import TOOLS, Fork, fork, tool_call

EPOCHS, FRAMES = 3, 6  # a third of the frames is evaluated; with two frames a batch an epoch has two iterations
START_LIMIT = 180  # seconds after which a start counts as hanging
# The clock's checkpoint is written after every iteration: most kills then hit some file.
FLAGS = ["--device", "cpu", "--threads", "1", "--seed", "3", "--logger_iter_interval", "1", "--eval_interval", "1",
         "--ckpt_save_time_interval", "0", "--max_ckpt_save_num", "2"]  # fmt: skip
# name -> (tool, model file). The first one teaches the distilled one.
TRAININGS = {
    "pointpillar": ("train", "pointpillar"),
    "distilled": ("train_kd", "distilled"),
    "second": ("train", "second"),
    "pointrcnn": ("train", "pointrcnn"),
}
# Ranges in metres and sizes that make a training step take milliseconds.
SMALLER = {
    "pointpillar": {"range": [0, -10.24, -3, 20.48, 10.24, 1], "width": 0.125},
    "second": {"range": [0, -8, -3, 16, 8, 1], "width": 0.25},
    "pointrcnn": {"range": [0, -10.24, -3, 20.48, 10.24, 1], "width": 0.25},
}


@dataclass(frozen=True)
class Reference:
    """An undisturbed training.

    Attributes:
        folder: its output folder.
        seconds: from start to end.
        counts: ``bytes`` written to its folder, ``operations`` on files there.
    """

    folder: Path
    seconds: float
    counts: dict[str, int]


class Lab:
    """A folder with scenes, model files and references, which are made when they are first asked for.

    Use it as a context: everything is deleted in the end.
    """

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="soak-"))
        self.data, self.forks, self._references, self._number = self.root / "kitti", [], {}, 0

    def __enter__(self) -> Lab:
        self.finish(self.fork(lambda: write_scenes(self.data)), "writing the scenes")
        write_model_files(self.root, self.data)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.forks:
            child.end()
        shutil.rmtree(self.root)

    def new_folder(self, name: str = "run") -> Path:
        """A path that nothing has yet."""
        self._number += 1
        return self.root / f"{name}{self._number}"

    def fork(self, call, environment=None, log: Path | None = None) -> Fork:
        """A fork that does not outlive the lab."""
        self.forks = [child for child in self.forks if not child.ended()]
        child = fork(call, log or self.new_folder("log").with_suffix(".txt"), environment)
        self.forks.append(child)
        return child

    def finish(self, child: Fork, what: str) -> None:
        """Waits for a fork that must succeed: without it there is nothing to test."""
        if not child.wait(START_LIMIT) or child.code:
            child.end()
            raise RuntimeError(f"{what} failed with exit status {child.code}:\n{child.text()[-3000:]}")

    def teacher(self) -> Path:
        """The checkpoint that distillations learn from."""
        return self.reference("pointpillar").folder / "ckpt" / f"checkpoint_epoch_{EPOCHS}.pth"

    def arguments(self, training: str, folder: Path, workers: int = 0) -> list[str]:
        """The flags of a training that writes to ``folder``."""
        argv = ["--cfg_file", f"{self.root / TRAININGS[training][1]}.yaml", "--output_dir", str(folder)]
        if TRAININGS[training][0] == "train_kd":
            argv += ["--teacher_ckpt", str(self.teacher())]
        return [*argv, "--workers", str(workers), *FLAGS]

    def start(self, training: str, folder: Path, *, workers: int = 0, fault: dict | None = None, ranks: int = 1):
        """One fork a rank; a fault of :mod:`soak.faults` is in the first one."""
        argv, port = self.arguments(training, folder, workers), free_port()
        if ranks > 1:
            argv += ["--launcher", "pytorch", "--batch_size", str(ranks)]
        started = []
        for rank in range(ranks):
            call = with_fault(tool_call(TRAININGS[training][0], argv), fault if rank == 0 else None, folder)
            started.append(self.fork(call, environment_of(rank, ranks, port) if ranks > 1 else None))
        return started

    def reference(self, training: str, ranks: int = 1) -> Reference:
        """The training without a disturbance and without workers, trained once."""
        if (training, ranks) not in self._references:
            self.arguments(training, self.root)  # a distillation's teacher is trained first, outside of the time
            folder, counts = self.new_folder(f"reference-{training}-"), self.new_folder("counts")
            begun = time.monotonic()
            for child in self.start(training, folder, fault={"kind": "count", "to": str(counts)}, ranks=ranks):
                self.finish(child, f"the undisturbed training {training}")
            seconds = time.monotonic() - begun
            self._references[training, ranks] = Reference(folder, seconds, json.loads(counts.read_text()))
        return self._references[training, ranks]


def with_fault(call, fault: dict | None, folder: Path):
    """``call`` in a process in which something goes wrong."""
    if fault is None:
        return call

    def faulty():
        faults.install(fault, folder)
        call()

    return faulty


def write_scenes(folder: Path) -> None:
    """A prepared KITTI folder of simulated frames."""
    from easydict import EasyDict

    from pcdet.config import cfg_from_yaml_file
    from pcdet.datasets.kitti.kitti_infos import create_kitti_infos
    from pcdet.testing import tiny_kitti

    tiny_kitti(folder, frames=FRAMES)
    dataset_cfg = cfg_from_yaml_file("cfgs/dataset_configs/simulated_kitti_dataset.yaml", EasyDict())
    create_kitti_infos(dataset_cfg, ["Car", "Pedestrian", "Cyclist"], folder, folder, workers=1)


def write_model_files(root: Path, data: Path) -> None:
    """The quickstart's detectors, smaller, and a student with an adapter of its own."""
    for name, smaller in SMALLER.items():
        cfg = yaml.safe_load((TOOLS / f"cfgs/simulated_models/{name}.yaml").read_text())
        cfg["DATA_CONFIG"].update(DATA_PATH=str(data), POINT_CLOUD_RANGE=smaller["range"])
        cfg["MODEL"]["WIDTH"] = smaller["width"]
        cfg["OPTIMIZATION"].update(NUM_EPOCHS=EPOCHS, BATCH_SIZE_PER_GPU=2)
        (root / f"{name}.yaml").write_text(yaml.safe_dump(cfg))
    kd = yaml.safe_load((TOOLS / "cfgs/simulated_models/kd/pointpillar_pointdistiller.yaml").read_text())
    kd["_BASE_CONFIG_"] = kd["KD"]["TEACHER"]["CFG"] = str(root / "pointpillar.yaml")
    (root / "distilled.yaml").write_text(yaml.safe_dump(kd))
