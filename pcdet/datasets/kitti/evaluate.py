"""Scores a folder of KITTI result files against one of label files, as ``python -m pcdet.datasets.kitti.evaluate``."""

from __future__ import annotations

from pathlib import Path

from pcdet.datasets.kitti.kitti_object_eval_python import rules
from pcdet.datasets.kitti.kitti_object_eval_python.eval import evaluate
from pcdet.datasets.kitti.kitti_object_eval_python.kitti_common import list_frames, read_objects
from pcdet.datasets.kitti.split_files import read_split

DEFAULT_CLASSES = ("Car", "Pedestrian", "Cyclist")


def evaluate_folders(
    label_path: str | Path,
    result_path: str | Path,
    *,
    classes=DEFAULT_CLASSES,
    label_split_file: str | Path | None = None,
) -> dict:
    """Evaluates KITTI text files by the official rules.

    Args:
        label_path: folder of ``000000.txt``, ... with 15 columns.
        result_path: folder of the same with the score in a 16th column; an empty file is a frame without detections.
        classes: what to evaluate.
        label_split_file: names of the frames, one a line and each once; both files must be there. None: all frames that
            have a result file.

    Returns:
        What `eval.evaluate` returns, and ``frames``, how many were scored, ``unscored``, how many label files had no
        result file.

    Raises:
        FileNotFoundError: a folder or the split file is missing.
        ValueError: frames without their file or listed twice, named; a malformed record, with its file and line; an
            unknown class.
    """
    classes = rules.resolve_classes(classes)
    labels, results = Path(label_path), Path(result_path)
    label_frames, result_frames = list_frames(labels), list_frames(results)
    frames = result_frames if label_split_file is None else read_split(label_split_file)
    if not frames:
        raise ValueError(f"no frame to score: {results} names none")
    _need_all(frames, label_frames, f"label file in {labels}")
    _need_all(frames, result_frames, f"result file in {results}")
    gt = read_objects(labels, frames, scored=False)
    dt = read_objects(results, frames, scored=True)
    unscored = 0 if label_split_file is not None else len(set(label_frames) - set(frames))
    return {**evaluate(gt, dt, classes), "frames": len(frames), "unscored": unscored}


def _need_all(frames: list[str], present: list[str], what: str) -> None:
    missing = sorted(set(frames) - set(present))
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise ValueError(f"{len(missing)} of {len(frames)} frames have no {what}: {', '.join(missing[:10])}{more}")


if __name__ == "__main__":
    from pcdet.cli.evaluate_kitti import main

    main()
