"""Names that come out of data files, on their way to paths: they must stay inside the folder they belong to."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np

from pcdet.datasets.errors import DataError

PLAIN_PATH = re.compile(r"\w[\w.+-]*(?:/\w[\w.+-]*)*", re.ASCII)  # no part begins with a point, none ends in a colon
FRAME_NAME = re.compile(r"[^\s/\\]+")  # no separators; white space would not survive a list of frames


def is_frame_name(name: object) -> bool:
    """Whether a frame may be called so: text that can be a file's name without its ending, in any folder."""
    if not isinstance(name, str) or not name.isprintable():  # which byte order marks in a text are not
        return False
    return FRAME_NAME.fullmatch(name) is not None and name.strip(".") != ""


def frame_file(folder: str | Path, frame_id: object, ending: str) -> Path:
    """``folder/<frame_id><ending>``; the number of a frame counts as its name.

    Raises:
        DataError: the name would lead elsewhere.
    """
    is_number = isinstance(frame_id, (int, np.integer)) and not isinstance(frame_id, bool)  # batches hold numpy's
    name = str(frame_id) if is_number else frame_id
    if not is_frame_name(name):
        raise DataError(
            f"the frame {frame_id!r} cannot have a file in {folder}: a frame's name must be text without / \\ or blanks"
        )
    return Path(folder) / f"{name}{ending}"


def is_inside(path: object) -> bool:
    """Whether a path, as a data file holds it, is relative, never leads upwards and names more than the folder."""
    if not isinstance(path, str) or not path or "\0" in path:
        return False
    if PLAIN_PATH.fullmatch(path):  # as nearly all are, and there may be hundreds of thousands
        return True
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not parts:  # of the folder itself
        return False
    return not path.startswith(("/", "\\")) and ".." not in parts and not parts[0].endswith(":")
