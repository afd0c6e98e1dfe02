"""Turns what `make bench` measured into the table of goals, in Markdown.

    python tools/benchmarks/summarise.py [FOLDER] [--all]

Reads the files that the scripts write with ``--json FOLDER/<script>.json`` (FOLDER: output/bench). A ratio is another
contender's median wall time over ours, taken in one run, the smallest where there are several cases; that of the CPU
times stands in brackets. What was not measured says why. ``--all`` adds every row of every script.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

OURS = "pcdet"
# Seconds that others need for the set of bm_kitti_eval.py, measured once on two cores of another machine.
DEVKIT_SECONDS, OPENPCDET_SECONDS = 41.0, 153.0

Results = dict[str, dict[str, Any]]  # script -> the JSON that it wrote
Verdict = tuple[str, bool]  # what was measured, and whether that is good enough


class NotMeasured(Exception):
    """Why there is no figure."""


@dataclass(frozen=True)
class Goal:
    """One row: what is measured, against what, what is wanted, and how the results say so."""

    what: str
    against: str
    goal: str
    judge: Callable[[Results], Verdict]


def rows_of(results: Results, script: str, case: str) -> dict[str, list[dict]]:
    """Contender -> its rows in the cases of a script that begin with ``case``."""
    if script not in results:
        raise NotMeasured(f"{script}.py wrote no result")
    found: dict[str, list[dict]] = {}
    for row in results[script]["rows"]:
        if row["case"].startswith(case):
            found.setdefault(row["contender"], []).append(row)
    if not found:
        raise NotMeasured(f"{script}.py has no case {case}...")
    return found


def rows_against(results: Results, script: str, case: str, *contenders: str) -> list[dict]:
    """The rows of one of several contenders, in each case the fastest one's."""
    by_contender = rows_of(results, script, case)
    present = [by_contender[name] for name in contenders if name in by_contender]
    if not present:
        skipped = results[script].get("skipped", {})
        raise NotMeasured("; ".join(f"{name} {skipped.get(name, 'absent')}" for name in contenders))
    return [min(same_case, key=lambda row: row["ms"]) for same_case in zip(*present, strict=True)]


def ratio(rows: Iterable[dict]) -> tuple[float, str]:
    """The smallest ratio of several cases, and how it is written."""
    worst = min(rows, key=lambda row: row["times_ours"])
    return worst["times_ours"], f"{worst['times_ours']:.1f}x (CPU {worst['cpu_times_ours']:.1f}x)"


def faster(script: str, case: str, contenders: Sequence[str], least: float, agreement: str = "") -> Callable:
    """Judges by the ratio, and where ``agreement`` is given by the word on our result beside theirs."""

    def judge(results: Results) -> Verdict:
        rows = rows_against(results, script, case, *contenders)
        value, text = ratio(rows)
        agrees = all(agreement in row["agreement"] for row in rows)
        return text + ("" if agrees else ", results DIFFER"), value >= least and agrees

    return judge


def little_memory(script: str, case: str, most: float) -> Callable:
    """Judges by the MB that our call adds to the process."""

    def judge(results: Results) -> Verdict:
        peaks = [row.get("peak_mb") for row in rows_of(results, script, case)[OURS]]
        if None in peaks:
            raise NotMeasured("no peak in the rows")
        return f"{max(peaks):.1f} MB", max(peaks) <= most

    return judge


KD_LOSS = ("bm_kd_loss", "loss, and gradients of the student's side")
RELEASED = "gather + cat + conv2d (released)"


def kd_loss_memory(results: Results) -> Verdict:
    """Our peak beside the released form's."""
    rows = rows_of(results, *KD_LOSS)
    ours, theirs = (rows[name][0]["peak_mb"] for name in (OURS, RELEASED))
    if ours is None:
        raise NotMeasured("this system tells no peaks")
    return f"{ours:.0f} of {theirs:.0f} MB: 1/{theirs / max(ours, 1e-3):.0f}", ours * 40 <= theirs


def kd_loss_error(results: Results) -> Verdict:
    """Our largest error against float64 beside that of the best of PyTorch's forms."""
    rows = rows_of(results, *KD_LOSS)
    ours = rows[OURS][0]["error"]
    theirs = min(rows[name][0]["error"] for name in rows if name != OURS)
    return f"{ours:.1e}, PyTorch's {theirs:.1e}", ours <= theirs


def kitti_evaluation(seconds: float, least: float) -> Callable:
    """Our median, files read, beside a figure of another run."""

    def judge(results: Results) -> Verdict:
        if "bm_kitti_eval" not in results:
            raise NotMeasured("bm_kitti_eval.py wrote no result")
        found = results["bm_kitti_eval"]
        own = median(read + evaluate for read, evaluate in zip(found["read"], found["evaluate"], strict=True))
        return f"{seconds / own:.0f}x ({own:.2f} s; theirs on another machine)", seconds / own >= least

    return judge


def kd_step(preset: str) -> Callable:
    """The distillation's share of a step's time and what it adds to the peak."""

    def judge(results: Results) -> Verdict:
        summary = rows_of(results, "bm_kd_step", f"step of 2 frames, preset {preset}")[OURS][0]["summary"]
        share, by_cpu, extra, plain = (summary[key] for key in ("share", "cpu_share", "extra_mb", "plain_share"))
        memory = "" if extra is None else f", {extra:.0f} MB"
        text = f"{share:.1%} (CPU {by_cpu:.1%}){memory}; plain PyTorch {plain:.0%}"
        return text, share <= 0.15 and (extra is None or extra <= 100)

    return judge


KNN = ("bm_knn", "features: 6000 queries, 16000 rows, 64 channels, k 128")
LIBRARIES = ("faiss IndexFlatL2", "scikit-learn ArgKmin", "chunked addmm + topk")
BALL_QUERY = ("cKDTree.query, bounded (CPU)", "cKDTree.query_ball_point (CPU)")
MMCV, FPSAMPLE, SPCONV = ("mmcv C++",), ("fpsample kd-line (CPU)",), ("spconv PointToVoxel (CPU)",)
SAME_LIST = "same keep list"
GOALS = [
    Goal("knn in feature space, 6000 x 16000 x 64, k 128", "released form (full matrix + topk)", ">= 8x faster",
         faster(*KNN, ["full matrix + topk (released)"], 8)),
    Goal("", "best library (faiss Flat, scikit-learn, chunked addmm)", ">= 3x faster", faster(*KNN, LIBRARIES, 3)),
    Goal("", "", "<= 16 MB extra", little_memory(*KNN, 16)),
    Goal("knn in space, four cases", "scipy cKDTree, built and queried", "not slower",
         faster("bm_knn", "space:", ["scipy cKDTree"], 1)),
    Goal("edge-convolution KD loss with all student gradients, 6000 x 128", "gather + cat + 1x1 conv + BN + ReLU + MSE",
         ">= 8x faster", faster(*KD_LOSS, [RELEASED], 8)),
    Goal("", "", "<= 1/40 of the memory", kd_loss_memory),
    Goal("", "float64", "error not larger than PyTorch's", kd_loss_error),
    Goal("distillation step, PointPillars 4x, batch 2, preset default", "teacher and student alone",
         "<= 15 % of the time, <= 100 MB", kd_step("default")),
    Goal("the same, preset official", "teacher (as far as it is needed) and student alone",
         "<= 15 % of the time, <= 100 MB", kd_step("official")),
    Goal("rotated NMS, 4096 boxes, four cases", "mmcv C++", ">= 15x faster, same keep list",
         faster("bm_iou3d_nms", "rotated NMS of 4096", MMCV, 15, SAME_LIST)),
    Goal("rotated NMS, 9000 boxes, four cases", "mmcv C++", ">= 15x faster, same keep list",
         faster("bm_iou3d_nms", "rotated NMS of 9000", MMCV, 15, SAME_LIST)),
    Goal("rotated IoU, 1000 x 1000, two cases", "mmcv C++", ">= 8x faster",
         faster("bm_iou3d_nms", "rotated IoU 1000 x 1000", MMCV, 8)),
    Goal("points in boxes, 120k x 50, two orders", "mmcv C++", ">= 8x faster",
         faster("bm_points_in_boxes", "mask of 120000 points", MMCV, 8)),
    Goal("furthest point sampling, 16384 -> 4096, exact", "fpsample, bucket kd-line", "not slower",
         faster("bm_pointnet2", "furthest point sampling, 16384", FPSAMPLE, 1)),
    Goal("ball query, 4096 in 16384, two radii", "scipy cKDTree", "within 1.5x",
         faster("bm_pointnet2", "ball query", BALL_QUERY, 1 / 1.5)),
    Goal("three nearest, 16384 in 4096", "scipy cKDTree", "within 1.5x",
         faster("bm_pointnet2", "three nearest", ["cKDTree.query (CPU)"], 1 / 1.5)),
    Goal("hard voxelisation of 120k points, six cases", "spconv PointToVoxel", "not slower, equal",
         faster("bm_voxelize", "", SPCONV, 1, "equal")),
    Goal("KITTI evaluation, 3,769 frames", "official C++ devkit (strict overlaps alone)", ">= 10x faster",
         kitti_evaluation(DEVKIT_SECONDS, 10)),
    Goal("", "OpenPCDet's Python", ">= 3x faster", kitti_evaluation(OPENPCDET_SECONDS, 3)),
]  # fmt: skip


def load(folder: Path) -> Results:
    """Every result of a folder and of those below it."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("**/bm_*.json"))}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def goals_table(results: Results) -> str:
    """Every goal with what was measured."""
    rows = []
    for goal in GOALS:
        try:
            measured, reached = goal.judge(results)
            verdict = "yes" if reached else "**no**"
        except NotMeasured as reason:
            measured, verdict = f"not measured: {reason}", "-"
        rows.append((goal.what, goal.against, goal.goal, measured, verdict))
    return table(("what", "against", "goal", "measured", "reached"), rows)


def machines(results: Results) -> str:
    """Command, processor, threads, load and versions of every script that says so."""
    keys = ("command", "processor", "threads", "load", "python")
    rows = [
        [*(str(result[key]) for key in keys), ", ".join(f"{n} {v}" for n, v in result["versions"].items())]
        for result in results.values()
        if all(key in result for key in (*keys, "versions"))
    ]
    return table((*keys, "versions"), rows)


def all_rows(results: Results) -> str:
    """Every row of every benchmark."""
    rows = []
    for script, result in results.items():
        for row in result.get("rows", []):
            peak = row.get("peak_mb")
            figures = (f"{row['ms']:.2f}", f"{row['cpu_ms']:.2f}", f"{row['times_ours']:.1f}")
            memory = "" if peak is None else f"{peak:.0f}"
            rows.append((script, row["case"], row["contender"], *figures, memory, row["agreement"]))
    return table(("script", "case", "contender", "ms", "CPU ms", "times ours", "MB", "agreement"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[2] / "output/bench"
    parser.add_argument("folder", nargs="?", type=Path, default=default, metavar="FOLDER")
    parser.add_argument("--all", action="store_true", help="every row of every script too")
    args = parser.parse_args()
    results = load(args.folder)
    if not results:
        raise SystemExit(f"{args.folder}: no bm_*.json; `make bench` writes them")
    parts = [goals_table(results), machines(results), *([all_rows(results)] if args.all else [])]
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
