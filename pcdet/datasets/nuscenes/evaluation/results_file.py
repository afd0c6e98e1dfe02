"""Reads result files of nuScenes' detection challenge: JSON with the boxes of every sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.evaluation.box_reader import BoxReader
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes
from pcdet.datasets.nuscenes.evaluation.rules import MAX_BOXES
from pcdet.datasets.nuscenes.poses import yaw_of
from pcdet.utils.text_files import read_text

SHOWN = 5  # tokens in one sentence
NO_ROW = -1  # in place of a box's row


def read_results(file: str | Path, tokens: Sequence[str]) -> tuple[Boxes, dict]:
    """The boxes of a result file, in its order, and its ``meta``.

    Args:
        file: ``{"meta": {...}, "results": {sample token: [box, ...]}}``.
        tokens: of the samples to evaluate: the file must have them all and no others.

    Raises:
        DataError: the file is damaged or not whole; every problem is named.
        FileNotFoundError: it is not there.
    """
    file, reader = Path(file), BoxReader()
    try:
        content = json.loads(read_text(file), object_hook=reader.take)
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}; write it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise DataError(f'{file} must hold {{"meta": {{...}}, "results": {{sample token: [boxes]}}}}')
    results = content["results"]
    problems = _sample_problems(results, tokens)
    if not isinstance(content.get("meta"), dict):
        problems.append("meta must say which sensors were used, and is missing")
    if all(isinstance(boxes, list) for boxes in results.values()):
        problems += _box_problems(reader, results)
    if problems:
        raise DataError([f"{file}: {problem}" for problem in problems])
    return _table(reader, results, tokens), content["meta"]


def _sample_problems(results: Mapping[str, Any], tokens: Sequence[str]) -> list[str]:
    problems, known = [], set(tokens)
    if missing := [token for token in tokens if token not in results]:
        rule = "every sample needs one, without boxes []"
        problems.append(f"{len(missing)} of {len(tokens)} samples have no entry in results ({rule}): {_shown(missing)}")
    if unknown := [token for token in results if token not in known]:
        problems.append(f"{len(unknown)} samples are not of the split: {_shown(unknown)}")
    if no_list := [token for token, boxes in results.items() if not isinstance(boxes, list)]:
        problems.append(f"{len(no_list)} samples have no list of boxes: {_shown(no_list)}")
    counts = {token: len(boxes) for token, boxes in results.items() if isinstance(boxes, list)}
    return problems + too_many_boxes(counts)


def too_many_boxes(counts: Mapping[str, int]) -> list[str]:
    """A sentence if a sample has more boxes than the challenge allows; sample token -> number of boxes."""
    many = {token: count for token, count in counts.items() if count > MAX_BOXES}
    if not many:
        return []
    worst = max(many, key=many.get)
    return [f"{len(many)} samples have more than {MAX_BOXES} boxes, for instance {worst}, which has {many[worst]}"]


def _shown(tokens: Sequence[str]) -> str:
    return ", ".join(tokens[:SHOWN]) + (f" and {len(tokens) - SHOWN} more" if len(tokens) > SHOWN else "")


def _box_problems(reader: BoxReader, results: Mapping[str, list]) -> list[str]:
    """What is wrong with boxes, each with its sample and its place there."""
    listed, owner = list(results), _owners(results)
    rows = [entry if type(entry) is int else NO_ROW for boxes in results.values() for entry in boxes]
    if rows != list(range(reader.num_boxes)):
        return [_misplaced(rows, owner, listed, reader)]
    wrong = {**_broken_rules(reader, listed, owner), **reader.wrong}
    first = np.searchsorted(owner, np.arange(len(listed)))
    return [f"box {row - first[owner[row]]} of sample {listed[owner[row]]}: {wrong[row]}" for row in sorted(wrong)]


def _owners(results: Mapping[str, list]) -> np.ndarray:
    """(N,) place in the file of each box's sample."""
    return np.repeat(np.arange(len(results)), [len(boxes) for boxes in results.values()])


def _misplaced(rows: Sequence[int], owner: np.ndarray, listed: Sequence[str], reader: BoxReader) -> str:
    if NO_ROW in rows:
        token = listed[owner[rows.index(NO_ROW)]]
        return f"{rows.count(NO_ROW)} boxes are no objects with a sample_token, one of them of sample {token}"
    return (
        f"{reader.num_boxes - len(rows)} boxes belong to no sample: a token comes twice in results, or they lie apart"
    )


def _broken_rules(reader: BoxReader, listed: Sequence[str], owner: np.ndarray) -> dict[int, str]:
    """Row -> the rule that a box of the right form breaks."""
    _, size, rotation, _, _ = columns = reader.columns()
    broken = {
        "its sample_token is not that of the list it stands in": reader.samples_named(listed) != owner,
        "rotation must not be 0 in all of its numbers": (rotation == 0).all(axis=1),
        "size must be above 0": (size <= 0).any(axis=1),
        "all of its numbers must be finite": ~np.isfinite(np.concatenate(columns, axis=1)).all(axis=1),
    }
    return {int(row): rule for rule, rows in broken.items() for row in np.flatnonzero(rows)}


def _table(reader: BoxReader, results: Mapping[str, list], tokens: Sequence[str]) -> Boxes:
    number = {token: i for i, token in enumerate(tokens)}
    place, size, rotation, velocity, score = reader.columns()
    return Boxes(
        sample=np.array([number[token] for token in results], dtype=np.int64)[_owners(results)],
        class_id=reader.class_ids(),
        center=place,
        size=size,
        yaw=yaw_of(rotation),
        velocity=velocity,
        attribute=reader.attribute_ids(),
        score=score[:, 0],
    )
