"""The results of an evaluation as OpenPCDet prints them, and as flat numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pcdet.datasets.nuscenes.evaluation.rules import CLASSES


def format_table(metrics: Mapping, class_names: Sequence[str] = CLASSES, version: str = "") -> str:
    """OpenPCDet's text: errors and APs (percent) of each class, then the means, mAP and NDS (0..1).

    Args:
        metrics: of ``metrics.evaluate``.
        class_names: to print.
        version: of the tables, for the first line.
    """
    lines = [f"----------------Nuscene {version} results-----------------"]
    for name in class_names:
        aps, errors = metrics["label_aps"][name], metrics["label_tp_errors"][name]
        of_errors = ", ".join(error.removesuffix("_err") for error in errors)
        values = ", ".join(f"{value:.2f}" for value in errors.values())
        of_aps = ", ".join(f"{100 * value:.2f}" for value in aps.values())
        lines.append(f"***{name} error@{of_errors} | AP@{', '.join(aps)}")
        lines.append(f"{values} | {of_aps} | mean AP: {metrics['mean_dist_aps'][name]}")
    lines.append("--------------average performance-------------")
    lines += [f"{error}:\t {value:.4f}" for error, value in metrics["tp_errors"].items()]
    lines += [f"mAP:\t {metrics['mean_ap']:.4f}", f"NDS:\t {metrics['nd_score']:.4f}"]
    return "".join(line + "\n" for line in lines)


def flatten(metrics: Mapping, class_names: Sequence[str] = CLASSES) -> dict[str, float]:
    """OpenPCDet's flat results, with those of each class behind them.

    Returns:
        ``trans_err, scale_err, orient_err, vel_err, attr_err`` (means over classes), ``mAP``, ``NDS``, and for each
        class ``<class>/AP``, ``<class>/AP@<threshold>`` and ``<class>/<error>``. APs are 0..1. What is not defined for
        a class is left out.
    """
    flat = {**metrics["tp_errors"], "mAP": metrics["mean_ap"], "NDS": metrics["nd_score"]}
    for name in class_names:
        flat[f"{name}/AP"] = metrics["mean_dist_aps"][name]
        flat.update({f"{name}/AP@{threshold}": value for threshold, value in metrics["label_aps"][name].items()})
        errors = metrics["label_tp_errors"][name].items()
        flat.update({f"{name}/{error}": value for error, value in errors if not math.isnan(value)})
    return flat
