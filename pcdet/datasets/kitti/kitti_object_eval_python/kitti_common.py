"""Reads folders of KITTI label or result files the way the devkit's fscanf does.

White space of any kind separates columns, a record may be glued to the number before it, columns beyond the last one
are passed over. Two differences: what the devkit cannot read it drops without a word, here a record that breaks off is
an error; and the occlusion may be written with a decimal point.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pcdet.datasets.kitti.kitti_object_eval_python.objects import Objects
from pcdet.utils.text_files import read_text

NUM_LABEL_COLUMNS = 14  # after the name: truncated, occluded, alpha, bbox 4, h w l, x y z, rotation_y
NUM_RESULT_COLUMNS = 15  # and the score

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"\S+")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE)


def get_label_annos(label_folder: str | Path, image_ids: Iterable[int | str] | None = None) -> list[dict]:
    """OpenPCDet annotations of a folder of label or result files; the score is 0 where a file has none.

    Args:
        label_folder: holds ``000000.txt``, ...
        image_ids: frames to read, as numbers or names; all files, in the order of their names, when None.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: a malformed record, with its file and line.
    """
    folder = Path(label_folder)
    names = list_frames(folder) if image_ids is None else [_frame_name(image_id) for image_id in image_ids]
    return [get_label_anno(folder / f"{name}.txt") for name in names]


def get_label_anno(label_path: str | Path) -> dict:
    """The OpenPCDet annotation of one label or result file; see `get_label_annos`."""
    names, values = [], []
    text = _read(label_path)
    scored = bool(text.strip()) and len(_scan_record(text, _skip_space(text, 0)).numbers) == NUM_RESULT_COLUMNS
    columns = NUM_RESULT_COLUMNS if scored else NUM_LABEL_COLUMNS
    parse_records(text, columns, label_path, names, values)
    table = np.array(values, dtype=np.float64).reshape(-1, columns)
    return {
        "name": np.array(names, dtype=str),
        "truncated": table[:, 0],
        "occluded": table[:, 1].astype(np.int64),
        "alpha": table[:, 2],
        "bbox": table[:, 3:7],
        "dimensions": table[:, [9, 7, 8]],  # the file has height, width, length
        "location": table[:, 10:13],
        "rotation_y": table[:, 13],
        "score": table[:, 14] if scored else np.zeros(len(table)),
    }


def read_objects(folder: Path, frames: Sequence[str], *, scored: bool) -> Objects:
    """The objects of ``folder/<frame>.txt`` for every frame; ``scored`` files are results, the others labels.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a malformed record, with its file and line.
    """
    columns = NUM_RESULT_COLUMNS if scored else NUM_LABEL_COLUMNS
    names: list[str] = []
    values: list[float] = []
    counts = []
    for frame in frames:
        path = f"{folder}/{frame}.txt"
        before = len(names)
        parse_records(_read(path), columns, path, names, values)
        counts.append(len(names) - before)
    return Objects.from_records(names, np.array(values).reshape(-1, columns), counts, scored=scored)


def list_frames(folder: Path) -> list[str]:
    """Names, without suffix, of the folder's ``.txt`` files, sorted.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} must be a folder of KITTI .txt files")
    return sorted(path.stem for path in folder.glob("*.txt"))


def parse_records(text: str, columns: int, path: str | Path, names: list[str], values: list[float]) -> None:
    """Appends the records of a file's text to ``names`` and ``values`` (``columns`` numbers a record).

    Raises:
        ValueError: a record has too few columns or one that is no number.
    """
    tokens = text.split()
    if len(tokens) % (columns + 1) == 0:
        found = tokens[:: columns + 1]
        del tokens[:: columns + 1]
        try:
            numbers = list(map(float, tokens))
        except ValueError:
            pass  # glued records or extra columns
        else:
            names += found
            values += numbers
            return
    _scan_records(text, columns, path, names, values)


class _Record(NamedTuple):
    name: str
    numbers: list[float]
    end: int  # just behind the last of them


def _scan_record(text: str, place: int, columns: int = NUM_RESULT_COLUMNS) -> _Record:
    """The name at ``place`` and as many numbers as follow it, at most ``columns``."""
    name = _NAME.match(text, place)
    end, numbers = name.end(), []
    while len(numbers) < columns and (number := _NUMBER.match(text, _skip_space(text, end))):
        numbers.append(float(number[0]))
        end = number.end()
    return _Record(name[0], numbers, end)


def _scan_records(text: str, columns: int, path: str | Path, names: list[str], values: list[float]) -> None:
    """`parse_records`, character by character as ``fscanf("%s %lf ... %lf")`` in a loop."""
    start = _skip_space(text, 0)
    end_of_last = None
    while start < len(text):
        record = _scan_record(text, start, columns)
        if len(record.numbers) == columns:
            names.append(record.name)
            values += record.numbers
            end_of_last = record.end
        elif not _is_extra(text, end_of_last, start, record):
            line = text.count("\n", 0, start) + 1
            raise ValueError(
                f"{path}, line {line}: a record must be a name and {columns} numbers"
                f"{', the last of them the score' if columns == NUM_RESULT_COLUMNS else ''}; after {record.name!r} "
                f"come {len(record.numbers)} and then {_rest_of_line(text, _skip_space(text, record.end))}"
            )
        start = _skip_space(text, record.end)


def _is_extra(text: str, end_of_last: int | None, start: int, record: _Record) -> bool:
    """Whether what was scanned are columns beyond the last one of the record before it."""
    same_line = end_of_last is not None and "\n" not in text[end_of_last:start]
    return same_line and (not record.numbers or _NUMBER.fullmatch(record.name) is not None)


def _rest_of_line(text: str, place: int) -> str:
    return repr(text[place:].split("\n")[0][:40]) if place < len(text) else "the end of the file"


def _skip_space(text: str, place: int) -> int:
    return _SPACE.match(text, place).end()


def _read(path: str | Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; every evaluated frame needs its file") from error


def _frame_name(image_id: int | str) -> str:
    return image_id if isinstance(image_id, str) else f"{image_id:06d}"
