"""The facts of a run that a result must carry: command, configuration, code, versions, device, seed, data."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pcdet
from pcdet.utils import commu_utils, places
from pcdet.utils.cpu_features import read_processor

PACKAGES = ("numpy", "numba", "spconv", "easydict", "tensorboardX")


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


def differences(before: Mapping, after: Mapping, path: str = "") -> dict[str, list]:
    """Dotted name -> [before, after] of what differs between two sessions' facts, command and start apart."""
    found = {}
    for name, value in after.items():
        here = f"{path}{name}"
        if here in ("command", "started") or (not path and name not in before):
            continue
        if isinstance(value, Mapping) and isinstance(before.get(name), Mapping):
            found |= differences(before[name], value, f"{here}.")
        elif before.get(name) != value:
            found[here] = [before.get(name), value]
    found |= {f"{path}{name}": [before[name], None] for name in before if path and name not in after}
    return found


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
    if root is None and places.INSTALLED:  # a repository around it is not this package's
        return None
    root = Path(root) if root else places.ROOT
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
