"""The evaluation of nuScenes' detection challenge on the CPU, without nuscenes-devkit: mAP, NDS and five errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.evaluation.by_frame import FrameScores, frame_scores
from pcdet.datasets.nuscenes.evaluation.frames import Frames
from pcdet.datasets.nuscenes.evaluation.ground_truth import GroundTruth, read_ground_truth
from pcdet.datasets.nuscenes.evaluation.metrics import evaluate
from pcdet.datasets.nuscenes.evaluation.submission import LIDAR_ONLY, make_submission, write_results
from pcdet.datasets.nuscenes.evaluation.text import flatten, format_table
from pcdet.datasets.nuscenes.tables import Tables
from pcdet.utils.safe_files import WriteError, replacing

RESULTS_FILE, METRICS_FILE = "results_nusc.json", "metrics_summary.json"


def read_labels(root_path: str | Path, version: str, infos: Iterable[Mapping]) -> None:
    """Reads what ``evaluate_annos`` compares results with, before there are any, and keeps it; nothing without labels.

    Args:
        root_path: folder that holds the folder of the tables.
        version: its name.
        infos: of the frames; with ``gt_boxes`` where there are labels.

    Raises:
        DataError: the infos have no poses, or the tables are missing, damaged or do not fit them.
    """
    frames = Frames.of_infos(infos)
    if not frames.labelled:
        return
    try:
        _ground_truth_of(Path(root_path), version, frames)
    except DataError as error:
        raise DataError(
            [f"the infos have labels, which the evaluation reads from the tables, but {p}" for p in error.problems]
        ) from None


def evaluate_annos(
    det_annos: Sequence[dict],
    class_names: Sequence[str],
    *,
    root_path: str | Path,
    version: str,
    infos: Iterable[Mapping],
    output_path: str | Path | None = None,
) -> tuple[str | None, dict[str, float]]:
    """OpenPCDet's text and flat results of detections in the frames of an info file; (None, {}) without labels.

    Args:
        det_annos: one a frame, as ``submission.make_submission`` takes them.
        class_names: whose lines and numbers are wanted; mAP and NDS are always those of all ten classes.
        root_path: folder that holds the folder of the tables.
        version: its name.
        infos: of the frames, all of which must have results; with ``gt_boxes`` where there are labels.
        output_path: folder that gets ``results_nusc.json``, for the challenge's server, and ``metrics_summary.json`` in
            the devkit's form; nothing is written if it is None.

    Returns:
        The text of ``text.format_table`` and the numbers of ``text.flatten``.

    Raises:
        DataError: the results are not whole or are no boxes, or the tables do not fit the infos.
        WriteError: a file cannot be written.
    """
    frames = Frames.of_infos(infos)
    submission = make_submission(det_annos, frames)
    if output_path is not None:
        Path(output_path).mkdir(parents=True, exist_ok=True)
        write_results(Path(output_path) / RESULTS_FILE, submission)
    if not frames.labelled:
        return None, {}
    metrics = evaluate(_ground_truth_of(Path(root_path), version, frames), submission.boxes)
    if output_path is not None:
        write_metrics(Path(output_path) / METRICS_FILE, {**metrics, "meta": LIDAR_ONLY})
    return format_table(metrics, class_names, version), flatten(metrics, class_names)


def frame_scores_of_annos(
    det_annos: Sequence[dict], *, root_path: str | Path, version: str, infos: Iterable[Mapping], metric: str = "NDS"
) -> FrameScores:
    """What each frame of an info file adds to the NDS or mAP of ``evaluate_annos``, in the order of the infos.

    Args:
        det_annos: as ``evaluate_annos`` takes them.
        root_path: likewise.
        version: likewise.
        infos: likewise.
        metric: ``NDS`` or ``mAP``.

    Raises:
        DataError: as ``evaluate_annos``, or the frames have no labels.
        ValueError: an unknown metric.
    """
    frames = Frames.of_infos(infos)
    if not frames.labelled:
        raise DataError(f"none of the {len(frames.tokens)} frames has labels, so that nothing can be scored")
    boxes = make_submission(det_annos, frames).boxes
    stamp = _stamp(Path(root_path), version, "sample")
    scenes = _scenes_of(Path(root_path), version, stamp, tuple(frames.tokens))
    return frame_scores(_ground_truth_of(Path(root_path), version, frames), boxes, metric, scenes)


def write_metrics(file: str | Path, metrics: Mapping) -> None:
    """Writes numbers as the devkit does, NaN where a class has no such error; the folder must exist.

    Raises:
        WriteError: it cannot be written.
    """
    try:
        with replacing(file) as stream:
            stream.write((json.dumps(metrics, indent=2) + "\n").encode())
    except OSError as error:
        raise WriteError(f"the numbers {file} cannot be written: {error.strerror or error}; make room") from error


def _ground_truth_of(root_path: Path, version: str, frames: Frames) -> GroundTruth:
    """The labels of the frames, kept for the next evaluation of a training while their table stays as it is."""
    stamp = _stamp(root_path, version, "sample_annotation")
    places = frames.ego()[:, :2]
    return _read_once(root_path, version, stamp, tuple(frames.tokens), tuple(map(tuple, places.tolist())))


def _stamp(root_path: Path, version: str, table: str) -> int:
    """When a table was written, in nanoseconds; 0 where it is not there."""
    file = Tables(root_path, version).folder / f"{table}.json"
    return file.stat().st_mtime_ns if file.is_file() else 0


@lru_cache(maxsize=2)
def _scenes_of(root_path: Path, version: str, stamp: int, tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The scene of each sample, kept for the next run of a plan while their table stays as it is."""
    tables = Tables(root_path, version)
    return tuple(tables.get("sample", token)["scene_token"] for token in tokens)


@lru_cache(maxsize=2)  # a plan of experiments evaluates two splits in turn
def _read_once(root_path: Path, version: str, stamp: int, tokens: tuple, ego: tuple) -> GroundTruth:
    return read_ground_truth(Tables(root_path, version), tokens, np.array(ego).reshape(-1, 2))
