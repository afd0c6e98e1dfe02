"""Scores a result file of nuScenes' detection challenge, as ``python -m pcdet.datasets.nuscenes.evaluate``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pcdet.datasets.nuscenes.evaluation.ground_truth import read_ground_truth
from pcdet.datasets.nuscenes.evaluation.metrics import evaluate
from pcdet.datasets.nuscenes.evaluation.results_file import read_results
from pcdet.datasets.nuscenes.evaluation.rules import split_to_evaluate
from pcdet.datasets.nuscenes.splits import samples_of_split
from pcdet.datasets.nuscenes.tables import Tables


def evaluate_file(
    result_path: str | Path,
    dataroot: str | Path,
    version: str,
    *,
    split: str | None = None,
    progress: Callable[[Sequence[str]], Sequence[str]] = lambda names: names,
) -> dict:
    """Evaluates a result file by the rules of ``detection_cvpr_2019``.

    Args:
        result_path: the JSON file.
        dataroot: folder that holds the folder of the tables.
        version: its name.
        split: whose samples the file must have; by default the one that the challenge evaluates of this version.
        progress: as ``metrics.evaluate`` takes it.

    Returns:
        The content of the devkit's ``metrics_summary.json``: what ``metrics.evaluate`` returns, with ``eval_time``
        (seconds, reading left out) and the file's ``meta``.

    Raises:
        DataError: the results are damaged or not whole, with every problem; or the tables are.
        FileNotFoundError: there is no such file.
    """
    tables = Tables(dataroot, version)
    tokens = [sample["token"] for sample in samples_of_split(tables, split or split_to_evaluate(version))]
    found, meta = read_results(result_path, tokens)
    truth = read_ground_truth(tables, tokens)
    start = time.perf_counter()
    metrics = evaluate(truth, found, progress)
    return {**metrics, "eval_time": time.perf_counter() - start, "meta": meta}


if __name__ == "__main__":
    from pcdet.cli.evaluate_nuscenes import main

    main()
