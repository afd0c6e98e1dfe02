"""What differs between a training that was disturbed and the same one undisturbed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from pcdet.utils import safe_files
from pcdet.utils.checkpoint_reader import read_checkpoint


def differences(wanted: Path, found: Path) -> list[str]:
    """How the run folder ``found`` differs from ``wanted``; empty where the training is the same, bit by bit.

    Everything in the last epoch's checkpoint counts (weights, moments, schedule, generators, what a distiller owns),
    and the results and epochs of ``run.json``. No file may be left half-written, and every checkpoint must be readable.
    """
    epoch = max(int(file.stem.rpartition("_")[2]) for file in (wanted / "ckpt").glob("checkpoint_epoch_*.pth"))
    file = found / "ckpt" / f"checkpoint_epoch_{epoch}.pth"
    if not file.is_file():
        return [f"there is no {file.name}; ckpt/ holds {sorted(f.name for f in file.parent.glob('*'))}"]
    problems = unreadable(found / "ckpt") + half_written(found)
    if not problems:
        problems += differing_entries(read_checkpoint(wanted / "ckpt" / file.name), read_checkpoint(file), file.name)
    return problems + differing_records(wanted / "run.json", found / "run.json", epoch)


def unreadable(ckpt_dir: Path) -> list[str]:
    """The checkpoints of a folder that cannot be read or are not what their sums say."""
    problems = []
    for file in sorted(ckpt_dir.glob("*.pth")):
        try:
            safe_files.verify(file)
            read_checkpoint(file)
        except ValueError as error:  # both modules' errors
            problems.append(f"{file.name}: {str(error).splitlines()[0]}")
    return problems


def half_written(folder: Path) -> list[str]:
    """Files that a killed process has left and nobody has removed."""
    return [f"left half-written: {file.relative_to(folder)}" for file in sorted(folder.rglob("*.partial*"))]


def differing_entries(wanted, found, where: str) -> list[str]:
    """The places where two nested containers of tensors and numbers differ in a bit."""
    if type(wanted) is not type(found):
        return [f"{where} is a {type(found).__name__}, not a {type(wanted).__name__}"]
    if isinstance(wanted, torch.Tensor):
        same = wanted.dtype == found.dtype and wanted.shape == found.shape and _bits(wanted) == _bits(found)
        return [] if same else [f"{where} differs"]
    if isinstance(wanted, Mapping):
        if wanted.keys() != found.keys():
            return [f"{where} differs in {sorted(map(str, wanted.keys() ^ found.keys()))}"]
        return [p for key in wanted for p in differing_entries(wanted[key], found[key], f"{where}/{key}")]
    if isinstance(wanted, (list, tuple)):
        if len(wanted) != len(found):
            return [f"{where} has {len(found)} entries, not {len(wanted)}"]
        pairs = enumerate(zip(wanted, found, strict=True))
        return [p for i, pair in pairs for p in differing_entries(*pair, f"{where}/{i}")]
    return [] if repr(wanted) == repr(found) else [f"{where} is {found!r}, not {wanted!r}"]


def differing_records(wanted: Path, found: Path, epoch: int) -> list[str]:
    """How ``run.json`` differs: in its seed, in the results of an epoch, or in epochs that cannot be."""
    try:
        ours, theirs = json.loads(found.read_text()), json.loads(wanted.read_text())
    except (OSError, ValueError) as error:
        return [f"run.json cannot be read: {error}"]
    problems = [f"run.json's {key} is {ours[key]}, not {theirs[key]}" for key in ("seed",) if ours[key] != theirs[key]]
    for number in {str(epoch), *ours["results"]}:
        if json.dumps(ours["results"].get(number)) != json.dumps(theirs["results"].get(number)):
            problems.append(f"run.json's results of epoch {number} differ")
    begun = [part["from_epoch"] for part in ours["sessions"]]
    ended = [part.get("to_epoch", 0) for part in ours["sessions"]]
    if begun != sorted(begun) or max([*begun, *ended]) > epoch:
        problems.append(f"run.json's sessions begin at epochs {begun} and end at {ended}, of {epoch}")
    return problems


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
