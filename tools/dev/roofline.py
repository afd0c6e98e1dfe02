"""Holds what `make gpu-check` measured on a GPU against the card's limits, in Markdown.

    python tools/dev/roofline.py [FOLDER]

Reads the files that the scripts write with ``--device cuda --json FOLDER/<script>.json``, in folders below too (FOLDER:
output/gpu_check/tasks/benchmarks, where that command leaves them). The limit of a row is the time that its arithmetic
takes at the card's float32 peak, or its compulsory traffic at the memory's bandwidth, whichever is longer; the share is
that limit over the median measured. Rows that wait for dependent steps (sampling, suppression) have no such limit, only
a goal. Goals are those for an H200. Below the table stand the form of ``knn`` that its share of the limit speaks for,
and what of a distillation step is the distillation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from summarise import OURS, NotMeasured, Results, kd_step, load, machines, rows_of, table

FLOAT = INT = 4  # bytes
LONG = 8
# Part of the card's name -> float32 operations and bytes a second.
CARDS = {"H200": (67e12, 4.3e12), "H100": (67e12, 3.35e12)}
KNN_BAR = 0.5  # share of the limit below which the expanded form with exact re-ranking would be worth its cost


@dataclass(frozen=True)
class Row:
    """One benchmark case on a GPU.

    Attributes:
        what: its name in the table.
        script: that measures it.
        case: how the script's case begins.
        goal_ms: wanted at most, on an H200.
        operations: float32 additions and multiplications that cannot be avoided.
        traffic: bytes that must be read or written once.
    """

    what: str
    script: str
    case: str
    goal_ms: float
    operations: float = 0.0
    traffic: float = 0.0


def knn_row(queries: int, rows: int, channels: int, k: int, goal_ms: float) -> Row:
    """A search in feature space: a multiplication and an addition for every pair and channel."""
    what = f"knn in features, {queries} x {rows} x {channels}, k {k}"
    case = f"features: {queries} queries, {rows} rows, {channels} channels, k {k}"
    traffic = (queries + rows) * channels * FLOAT + queries * k * (FLOAT + LONG)
    return Row(what, "bm_knn", case, goal_ms, 2.0 * queries * rows * channels, traffic)


# 6000 centres of 128 neighbours among 16,000 rows of 64 channels, described by 32: projected before they are gathered.
PROJECTION = 2.0 * (16_000 + 6_000) * 64 * 32
TABLES = (16_000 + 6_000) * 64 * FLOAT
EDGES = 6_000 * 128
ROWS = [
    knn_row(6000, 16000, 64, 128, 0.36),
    knn_row(6000, 40000, 64, 128, 0.9),
    knn_row(256, 35200, 128, 256, 0.15),
    knn_row(256, 35200, 256, 256, 0.2),
    knn_row(6000, 16384, 128, 128, 0.75),
    Row("edge convolution, every edge", "bm_edge_conv", "forward, C 64, none", 0.08,
        PROJECTION + EDGES * 32, TABLES + EDGES * (LONG + 32 * FLOAT)),
    Row("edge convolution, largest", "bm_edge_conv", "forward, C 64, max", 0.05,
        PROJECTION + EDGES * 32, TABLES + EDGES * LONG + 6_000 * 32 * FLOAT),
    Row("edge-convolution KD loss with the student's gradients", "bm_kd_loss",
        "loss, and gradients of the student's side", 0.3),
    Row("rotated NMS, 4096 boxes, slowest case", "bm_iou3d_nms", "rotated NMS of 4096", 0.15),
    Row("rotated NMS, 9000 boxes, slowest case", "bm_iou3d_nms", "rotated NMS of 9000", 0.4),
    Row("points in boxes, 120k x 50, first box", "bm_points_in_boxes", "first box of 120000 points", 0.03,
        traffic=120_000 * (3 * FLOAT + INT)),
    Row("hard voxelisation of 120k points, slowest case", "bm_voxelize", "", 0.06, traffic=120_000 * 4 * FLOAT * 2),
    Row("furthest point sampling, 16384 -> 4096", "bm_pointnet2", "furthest point sampling, 16384", 8.0),
    Row("furthest point sampling, 120000 -> 16384", "bm_pointnet2", "furthest point sampling, 120000", 50.0),
]  # fmt: skip


def card_of(results: Results) -> tuple[str, Callable[[Row], float | None]]:
    """The card's name, and a row's limit on it in ms: None without one, or on a card whose peaks are not listed."""
    names = {result["device"] for result in results.values()}
    if len(names) != 1 or "cpu" in names:
        raise SystemExit(f"results of one GPU are wanted, these are of {', '.join(sorted(names)) or 'no device'}")
    name = names.pop()
    peaks = next((peaks for part, peaks in CARDS.items() if part in name), None)

    def limit(row: Row) -> float | None:
        if peaks is None or not (row.operations or row.traffic):
            return None
        return max(row.operations / peaks[0], row.traffic / peaks[1]) * 1e3

    return name, limit


def line(row: Row, results: Results, limit_ms: float | None) -> tuple[str, ...]:
    """A row's cells; the slowest of its cases counts."""
    limit = "-" if limit_ms is None else f"{limit_ms:.4f}"
    try:
        measured = max(found["ms"] for found in rows_of(results, row.script, row.case)[OURS])
    except NotMeasured as reason:
        return row.what, f"not measured: {reason}", limit, "-", f"{row.goal_ms:g}", "-"
    share = "-" if limit_ms is None else f"{limit_ms / measured:.0%}"
    reached = "yes" if measured <= row.goal_ms else "**no**"
    return row.what, f"{measured:.3f}", limit, share, f"{row.goal_ms:g}", reached


def knn_verdict(results: Results, limit: Callable[[Row], float | None]) -> str:
    """Which form of the search its measured share of the limit speaks for."""
    shares, missing = {}, []
    for row in ROWS:
        if row.script != "bm_knn":
            continue
        limit_ms = limit(row)
        try:
            measured = max(found["ms"] for found in rows_of(results, row.script, row.case)[OURS])
        except NotMeasured as reason:
            missing.append(str(reason))
            continue
        if limit_ms is not None:
            shares[row.what] = limit_ms / measured
    if missing or not shares:
        return f"knn: undecided, {missing[0] if missing else 'the peaks of this card are not listed'}."
    what, least = min(shares.items(), key=lambda item: item[1])
    reached = sum(share >= KNN_BAR for share in shares.values())
    finding = f"{reached} of {len(shares)} cases reach the bar of {KNN_BAR:.0%}, the least is {least:.0%} ({what})"
    if least >= KNN_BAR:
        return f"knn: the exact form stays: {finding}."
    return f"knn: **the expanded form with exact re-ranking is worth a trial**: {finding}."


def kd_share(results: Results) -> str:
    """What of a distillation step is the distillation, for both presets of the benchmark."""
    lines = []
    for preset in ("default", "official"):
        try:
            measured, reached = kd_step(preset)(results)
            verdict = "reached" if reached else "**not reached**"
        except NotMeasured as reason:
            measured, verdict = f"not measured: {reason}", "open"
        lines.append(f"Distillation in a step, preset {preset}: {measured}; the goal of 15 % and 100 MB is {verdict}.")
    return "\n\n".join(lines)


def text(results: Results) -> str:
    """Everything that is to be said of one GPU's results, in Markdown.

    Raises:
        SystemExit: the results are not of one GPU.
    """
    name, limit = card_of(results)
    header = ("what", "ms", "limit, ms", "share of the limit", "goal, ms", "reached")
    rows = table(header, [line(row, results, limit(row)) for row in ROWS])
    return "\n\n".join([name, rows, knn_verdict(results, limit), kd_share(results), machines(results)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[2] / "output/gpu_check/tasks/benchmarks"
    parser.add_argument("folder", nargs="?", type=Path, default=default, metavar="FOLDER")
    args = parser.parse_args()
    results = load(args.folder)
    if not results:
        raise SystemExit(f"{args.folder}: no bm_*.json; `make gpu-check` writes them")
    print(text(results))


if __name__ == "__main__":
    main()
