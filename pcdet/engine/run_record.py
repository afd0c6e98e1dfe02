"""``run.json``, what a result must carry: command, configuration, code, versions, device, seed, data, times, AP."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pcdet
from pcdet.engine.hooks import Hook
from pcdet.utils import commu_utils
from pcdet.utils.cpu_features import read_processor

PACKAGES = ("numpy", "numba", "spconv", "easydict", "tensorboardX")


class RunRecord:
    """The content of ``run.json``, gathered over the sessions (start, kill, resume) of one run.

    ``train_wall_s`` and ``train_cpu_s`` are sums over the sessions; a session's CPU time covers this process, its ended
    loader workers, and all ranks. A killed session counts up to its last finished epoch.

    Args:
        path: the file; what an earlier session wrote there is kept.
        facts: entries of this session (see :func:`describe_run`), over those of earlier ones.
    """

    def __init__(self, path: str | Path, facts: Mapping[str, Any]):
        self.path = Path(path)
        earlier = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.content = {"sessions": [], "results": {}, **earlier, **jsonable(facts)}
        self.session: dict[str, Any] | None = None

    def begin_session(self, epoch: int) -> None:
        """Opens a session's entry; its times come with :meth:`add_time`."""
        self.session = {"started": now(), "from_epoch": epoch, "wall_s": 0.0, "cpu_s": 0.0}
        self.content["sessions"].append(self.session)

    def add_time(self, epoch: int, it: int, wall_s: float, cpu_s: float) -> None:
        """Adds training time up to the end of ``epoch`` epochs and ``it`` iterations, and writes the file."""
        self.session["wall_s"] = round(self.session["wall_s"] + wall_s, 3)
        self.session["cpu_s"] = round(self.session["cpu_s"] + cpu_s, 3)
        self.session.update(to_epoch=epoch, to_iteration=it, ended=now())
        for total, part in (("train_wall_s", "wall_s"), ("train_cpu_s", "cpu_s")):
            self.content[total] = round(sum(s.get(part, 0.0) for s in self.content["sessions"]), 3)
        self.write()

    def add_result(self, epoch: int | str, result: Mapping[str, float]) -> None:
        """Keeps an evaluation's metrics and writes the file."""
        self.content["results"][str(epoch)] = jsonable(result)
        self.write()

    def write(self) -> None:
        """Writes the file, whole or not at all."""
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(self.content, indent=2) + "\n")
        os.replace(partial, self.path)


class RecordTimes(Hook):
    """Keeps a :class:`RunRecord`'s times, from epoch to epoch; what other hooks do in between is not counted.

    All ranks need it (others than rank 0 pass ``None``). Put it after Checkpoint and before Evaluate.
    """

    def __init__(self, record: RunRecord | None):
        self.record = record

    def before_train(self, trainer) -> None:  # noqa: D102
        if self.record is not None:
            self.record.begin_session(trainer.epoch)

    def before_epoch(self, trainer) -> None:  # noqa: D102
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()

    def after_epoch(self, trainer) -> None:  # noqa: D102
        shares = commu_utils.gather_to_main(cpu_seconds() - self._cpu)
        if self.record is not None:
            self.record.add_time(trainer.epoch, trainer.it, time.perf_counter() - self._wall, sum(shares))

    def on_interrupt(self, trainer) -> None:  # noqa: D102
        if self.record is not None:  # other ranks may be gone: this process alone is counted
            cpu_s = cpu_seconds() - self._cpu
            self.record.add_time(trainer.epoch, trainer.it, time.perf_counter() - self._wall, cpu_s)


def describe_run(
    *,
    command: Sequence[str],
    cfg: Mapping,
    device: torch.device,
    seed: int | None,
    dataset: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """The facts of a run.

    Args:
        command: the command line.
        cfg: the resolved configuration.
        device: what it runs on.
        seed: of the run.
        dataset: the training (or evaluation) data set, for its fingerprint.
        **more: further entries.
    """
    return {
        "command": list(command),
        "started": now(),
        "seed": seed,
        "git_commit": git_commit(),
        "versions": versions(),
        "device": device_facts(device),
        "world_size": commu_utils.get_world_size(),
        "dataset": dataset_facts(dataset) if dataset is not None else None,
        **more,
        "config": cfg,
    }


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"python": platform.python_version(), "pcdet": pcdet.__version__, "torch": torch.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # spconv for CUDA goes by another name; what is absent is not listed
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def device_facts(device: torch.device) -> dict[str, Any]:
    """Name and size of the device, and the CPU threads in use."""
    cpu, threads = read_processor().name, torch.get_num_threads()
    facts = {"type": device.type, "cpu": cpu, "cpus": os.cpu_count(), "threads": threads}
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def git_commit(root: str | Path | None = None) -> str | None:
    """The commit of the source tree, with ``-dirty`` where tracked files differ; None outside a repository."""
    root = Path(root) if root else Path(pcdet.__file__).resolve().parent.parent
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root, capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip() or None


def dataset_facts(dataset: Any) -> dict[str, Any]:
    """Name, size and fingerprint of a data set; its own ``fingerprint`` where it has one."""
    if hasattr(dataset, "fingerprint"):
        digest = dataset.fingerprint
    else:
        parts = [type(dataset).__name__, len(dataset), list(getattr(dataset, "class_names", []))]
        parts.append([str(i) for i in getattr(dataset, "sample_id_list", None) or []])
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return {"name": type(dataset).__name__, "samples": len(dataset), "fingerprint": digest}


def cpu_seconds() -> float:
    """CPU seconds, user and system, of this process and of its children that have ended."""
    return sum(os.times()[:4])


def now() -> str:
    """The time, to the second, with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def jsonable(value: Any) -> Any:
    """``value`` as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [jsonable(v) for v in value]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
