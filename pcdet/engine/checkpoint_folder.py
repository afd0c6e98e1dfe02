"""A run's folder of checkpoints: which one to go on from, and which may be deleted.

Files are ordered by what is in them, never by their times, which a copy of the folder changes.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pcdet.utils import safe_files
from pcdet.utils.checkpoint_names import BEST
from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint

LATEST = "latest_model.pth"
EPOCH_FILE = re.compile(r"checkpoint_epoch_(\d+)\.pth")
PUT_ASIDE = re.compile(r".*-old\d+\.pth")


def checkpoint_epochs(ckpt_dir: str | Path) -> dict[int, Path]:
    """Finished epochs -> ``checkpoint_epoch_<N>.pth``, in order of epochs."""
    matches = ((EPOCH_FILE.fullmatch(f.name), f) for f in Path(ckpt_dir).glob("checkpoint_epoch_*.pth"))
    return dict(sorted((int(match[1]), file) for match, file in matches if match))


def has_checkpoints(ckpt_dir: str | Path) -> bool:
    """Whether a folder holds files that a training goes on from by itself, readable or not."""
    return bool(checkpoint_epochs(ckpt_dir)) or (Path(ckpt_dir) / LATEST).is_file()


def newest_checkpoint(
    ckpt_dir: str | Path, logger: logging.Logger | None = None
) -> tuple[Path, dict] | tuple[None, None]:
    """The file of most epochs and iterations that can be read, and its content; (None, None) in a folder without any.

    ``checkpoint_epoch_<N>.pth`` and ``latest_model.pth`` count. ``checkpoint_best.pth`` does not: it is seldom the
    newest, and a training goes on from it only with ``--ckpt``.

    Args:
        ckpt_dir: the folder; it need not exist.
        logger: warned of files that would have come first but cannot be read.

    Raises:
        CheckpointError: there are checkpoints, but none that can be used. Training anew beside them would end with
            their epochs mixed.
    """
    folder, damaged = Path(ckpt_dir), []
    latest = _read(folder / LATEST, damaged) if (folder / LATEST).is_file() else None
    found = (None, None)
    for epoch, file in reversed(checkpoint_epochs(folder).items()):
        # latest_model.pth of as many epochs was written at their end or later
        if latest is not None and latest["epoch"] >= epoch:
            break
        state = _read(file, damaged)
        if state is not None:
            found = file, state
            break
    if found == (None, None) and latest is not None:
        found = folder / LATEST, latest
    if found == (None, None):
        _check_that_nothing_is_left(folder, damaged)
    for problem in damaged if logger is not None else ():
        logger.warning(f"{problem}; going on from {found[0]} instead")
    return found


def prune_checkpoints(ckpt_dir: str | Path, keep: int, epoch: int) -> list[Path]:
    """Deletes ``checkpoint_epoch_<N>.pth`` of the lowest epochs, with their checksums, and returns what it deleted.

    Args:
        ckpt_dir: the folder.
        keep: how many stay, of those up to ``epoch``; at least one.
        epoch: of the training. Files of later epochs are not its own: they are neither counted nor deleted.
    """
    own = [file for number, file in checkpoint_epochs(ckpt_dir).items() if number <= epoch]
    old = own[: -max(keep, 1)]
    for file in old:
        safe_files.remove(file)
    return old


def _read(file: Path, damaged: list[str]) -> dict | None:
    """The content of a checkpoint; None, with the reason added to ``damaged``, where it cannot be used."""
    try:
        state = read_checkpoint(file)
    except CheckpointError as error:
        damaged.append(str(error))
        return None
    epoch = state.get("epoch")
    if "model_state" not in state or not isinstance(epoch, int):
        damaged.append(f"checkpoint {file} is not one of a training: it needs model_state and a number as epoch")
        return None
    return state


def _check_that_nothing_is_left(folder: Path, damaged: list[str]) -> None:
    """Raises CheckpointError in a folder whose checkpoints are all damaged, or not such as a training resumes from."""
    if damaged:
        raise CheckpointError(
            "\n".join(damaged) + f"\nso training cannot go on from {folder}; give --ckpt FILE to go on from a copy, or "
            "move these files away to start from the beginning"
        )
    # checkpoint_best.pth alone is what a kill before the first checkpoint leaves; BestCheckpoint puts it aside
    others = sorted(f.name for f in folder.glob("*.pth") if f.name != BEST and not PUT_ASIDE.fullmatch(f.name))
    if others:
        raise CheckpointError(
            f"{folder} holds {', '.join(others)}, which training does not go on from by itself; give --ckpt "
            f"{folder / others[0]} to go on from it, or move it away to start from the beginning"
        )
