"""Times a distillation step of students of a quarter of the parameters, and what of it is the distillation.

    python tools/benchmarks/bm_kd_step.py [--case default official] [--device cpu] [--repeats 5] [--threads N]
                                            [--json FILE]

Two clouds of 20,000 points, and the blocks of a shipped student and its teacher:

    default, official    kitti_models/kd/pointpillar_4x_paper.yaml (PointDistiller on pillars) and
                         pointpillar_4x_official.yaml (the released code's form), 432 x 496 cells
    centers              kitti_models/kd/centerpoint_pillar_4x_logits.yaml: pivotal logits of centre heads, the same
                         cells
    branches             nuscenes_models/kd/cbgs_pp_multihead_4x_logits.yaml: pivotal logits of an anchor head with six
                         branches, 512 x 512 cells

A step is the teacher's forward without gradients, the student's forward, the losses and the
backward pass; no optimiser.

"teacher and student alone" runs the teacher as far as the distillation needs it, so that the difference from the whole
step is the distillation: taps, features, sampling, graph, adapters, losses and their gradients. "distillation alone" is
the same work on what was tapped once, without any network, and so measures it without the noise of the networks; the
share is its time over its own and that of "teacher and student alone". "plain PyTorch", of PointDistiller, is the same
step with full matrices of distances and with every edge gathered, concatenated, convolved and normed. Memory is the
rise at a first call in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from unittest.mock import patch

import torch
from _benchmark import OURS, REPO_ROOT, Benchmark
from _memory import note_peaks, serve_peak
from _pillars import facts, pillar_batch
from easydict import EasyDict
from torch import Tensor
from torch.nn import functional

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network
from pcdet.models.kd import build_distiller
from pcdet.models.kd.diagnostics import thinned_out
from pcdet.models.kd.features.taps import Taps
from pcdet.models.kd.graphs import neighbours
from pcdet.models.kd.losses import point_distiller
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.step import Step

STUDENTS = {
    "default": "kitti_models/kd/pointpillar_4x_paper.yaml",
    "official": "kitti_models/kd/pointpillar_4x_official.yaml",
    "centers": "kitti_models/kd/centerpoint_pillar_4x_logits.yaml",
    "branches": "nuscenes_models/kd/cbgs_pp_multihead_4x_logits.yaml",
}
PRESETS = ("default", "official")  # of PointDistiller; the goals are theirs
NUSCENES_LABELS = (0, 1, 9, 8)  # padding, and the classes there of a car, a pedestrian and a cyclist
FRAMES, POINTS = 2, 20_000
SMALL_RANGE = {0: 0, 1: -6.4, 3: 12.8, 4: 6.4}  # of a rehearsal, in place of the range's x and y
NETWORKS, WHOLE_TEACHER = "teacher and student alone", "whole teacher, and student"
PLAIN, ALONE = "plain PyTorch", "distillation alone"
GOAL_SHARE, GOAL_MB = 0.15, 100


def make_distiller(case: str, small: bool, device: torch.device):
    """A distiller of random networks, and a batch."""
    cfg = cfg_from_yaml_file(str(REPO_ROOT / "tools/cfgs" / STUDENTS[case]), EasyDict())
    teacher_cfg = cfg_from_yaml_file(str(REPO_ROOT / "tools" / cfg.KD.TEACHER.CFG), EasyDict())
    limits = [
        SMALL_RANGE.get(i, limit) if small else limit for i, limit in enumerate(cfg.DATA_CONFIG.POINT_CLOUD_RANGE)
    ]
    voxel_size = cfg.DATA_CONFIG.DATA_PROCESSOR[-1].VOXEL_SIZE
    given = facts(cfg.CLASS_NAMES, limits, voxel_size)
    batch = pillar_batch(FRAMES, POINTS // (20 if small else 1), limits, voxel_size, device)
    if cfg.DATA_CONFIG.DATASET == "NuScenesDataset":
        given.point_feature_encoder.num_point_features = 5
        batch = as_of_nuscenes(batch)
    torch.manual_seed(0)
    teacher, student = (build_network(node, len(cfg.CLASS_NAMES), given) for node in (teacher_cfg.MODEL, cfg.MODEL))
    return build_distiller(cfg, student, given, teacher=teacher).to(device).train(), batch


def as_of_nuscenes(batch: dict) -> dict:
    """The batch with the columns of nuScenes: points of the key frame, objects with velocities and classes there."""
    boxes, labels = batch["gt_boxes"].split([7, 1], dim=2)
    labels = torch.tensor(NUSCENES_LABELS, device=labels.device)[labels.long()].to(boxes)
    boxes = torch.cat([boxes, torch.ones_like(boxes[:, :, :2]), labels], dim=2)
    return {**batch, "voxels": functional.pad(batch["voxels"], (0, 1)), "gt_boxes": boxes}


def step(distiller, batch: dict) -> float:
    """The whole step; its loss."""
    distiller.zero_grad()
    loss = distiller(dict(batch))[0]["loss"]
    loss.backward()
    return loss.item()


def networks(distiller, batch: dict, whole_teacher: bool) -> None:
    """The step without any distillation."""
    distiller.zero_grad()
    if whole_teacher:
        with torch.no_grad():
            distiller.teacher.forward_features(dict(batch))
    else:
        distiller._run_teacher(batch, list(distiller.losses))
    distiller.student(dict(batch))[0]["loss"].backward()


def distillation(distiller, batch: dict) -> Callable[[], None]:
    """A call of everything that the distillation adds, backward to what it tapped."""

    def leaf(value):
        if isinstance(value, dict):
            return {key: leaf(part) for key, part in value.items()}
        if isinstance(value, list):
            return [leaf(part) for part in value]
        return value.detach().requires_grad_() if isinstance(value, Tensor) and value.requires_grad else value

    student_batch, head, labels = dict(batch), distiller.student.dense_head, list(distiller.losses)
    with Taps(distiller.student, distiller._taps("student", labels)) as taps:
        distiller.student(student_batch)
    tapped = {name: leaf(value) for name, value in taps.complete(student_batch).items()}
    head.forward_ret_dict = {name: leaf(value) for name, value in head.forward_ret_dict.items()}
    student_batch = {name: leaf(value) for name, value in student_batch.items()}
    seen = distiller._run_teacher(batch, labels)

    def call() -> None:
        distiller.zero_grad()
        # New ones for each call, which remember nothing of the last.
        teacher = ModelOutputs(seen.detector, seen.batch, seen.taps, seen.geometry)
        student = ModelOutputs(distiller.student, student_batch, tapped, distiller.geometry)
        loss, _ = distiller._kd_losses(labels, Step(student, teacher, batch))
        loss.backward()

    return call


# --------------------------------------------------------------------------------------------------- the plain form


def full_matrix_knn(query: Tensor, base: Tensor, k: int, query_frame: Tensor, base_frame: Tensor):
    """``knn`` as the released code has it: every distance, then the k smallest; frame by frame."""
    parts, start = [], 0
    for frame in query_frame.unique():
        points, rows = query[query_frame == frame], base[base_frame == frame]
        squares = points.square().sum(1)[:, None] + rows.square().sum(1)[None] - 2 * points @ rows.T
        found = squares.topk(min(k, len(rows)), dim=1, largest=False)
        parts.append((found.values, found.indices + start))
        start += len(rows)
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


@dataclass(frozen=True)
class PlainEmbedding:
    """``EdgeEmbedding`` with (1, C', G, K) tensors of edges, of graphs that miss no neighbour."""

    edges: Tensor

    @classmethod
    def of(cls, adapter, rows: Tensor, centres: Tensor, graph, *, pool: str) -> PlainEmbedding:
        """What ``adapter`` makes of every edge."""
        assert (adapter.edge, pool) == ("concat", "none")
        idx = graph.idx
        pairs = torch.cat([rows[idx], rows[centres][:, None].expand(-1, idx.shape[1], -1)], dim=2)
        edges = pairs.permute(2, 0, 1)[None]
        if adapter.kind == "none":
            return cls(edges)
        edges = functional.conv2d(edges, adapter.conv.weight[:, :, None, None], adapter.conv.bias)
        if adapter.bn is not None:
            norm = adapter.bn
            edges = functional.batch_norm(edges, None, None, norm.weight, norm.bias, training=True).relu()
        return cls(edges)

    def squared_distance(self, other: PlainEmbedding) -> Tensor:
        """(G,) sum of the squared differences."""
        return (self.edges - other.edges).square().sum(dim=(0, 1, 3))

    def numel(self) -> int:
        """How many numbers describe each graph."""
        return self.edges.shape[1] * self.edges.shape[3]

    def mean(self) -> Tensor:
        """(G, C') the mean over the edges."""
        return self.edges[0].mean(dim=2).T

    def sample_rows(self) -> Tensor:
        """(n, C') some thousand edges."""
        edges = self.edges[0].flatten(1)
        return edges[:, thinned_out(edges.shape[1], edges.device)].T


def plain_step(distiller, batch: dict) -> float:
    """``step`` with plain PyTorch in place of our ops."""
    with ExitStack() as changed:
        changed.enter_context(patch.object(neighbours, "knn", full_matrix_knn))
        changed.enter_context(patch.object(point_distiller, "EdgeEmbedding", PlainEmbedding))
        table = patch.object(point_distiller, "edge_graph", lambda idx, *_, **__: SimpleNamespace(idx=idx))
        changed.enter_context(table)
        return step(distiller, batch)


# ------------------------------------------------------------------------------------------------------- the benchmark


def contenders(case: str):
    """The calls of one case, as ``serve_peak`` wants them."""

    def make(device: torch.device, small: bool):
        distiller, batch = make_distiller(case, small, device)
        # The student's head holds what it predicted last: one of its own for what is kept.
        alone = distillation(*make_distiller(case, small, device))
        plain = {PLAIN: lambda: plain_step(distiller, batch)} if case in PRESETS else {}
        return {
            OURS: lambda: step(distiller, batch),
            NETWORKS: lambda: networks(distiller, batch, whole_teacher=False),
            WHOLE_TEACHER: lambda: networks(distiller, batch, whole_teacher=True),
            ALONE: alone,
            **plain,
        }

    return make


CASES = {case: contenders(case) for case in STUDENTS}


def summary(rows: dict[str, dict]) -> dict[str, float | None]:
    """Share of the distillation in wall and CPU time, by itself and by difference; what it adds to the peak, MB.

    And those of the plain form, where it takes part.
    """
    networks, whole, alone = (rows[name] for name in (NETWORKS, OURS, ALONE))
    steps = {"": whole, "plain_": rows[PLAIN]} if PLAIN in rows else {"": whole}
    found: dict[str, float | None] = {}
    for prefix, key in (("", "ms"), ("cpu_", "cpu_ms")):
        found[f"{prefix}share"] = alone[key] / (alone[key] + networks[key])
        found[f"{prefix}share_by_difference"] = 1 - networks[key] / whole[key]
        if PLAIN in rows:
            found[f"{prefix}plain_share"] = 1 - networks[key] / rows[PLAIN][key]
    for kind, row in steps.items():
        found[f"{kind}extra_mb"] = None if row["peak_mb"] is None else row["peak_mb"] - networks["peak_mb"]
    return found


def agreement(ours, other) -> str:
    return "" if other is None else f"loss {other:.5f} (ours {ours:.5f})"


def print_summary(found: dict[str, float | None]) -> None:
    """What ``summary`` has found, in words; beside PointDistiller's what its goals are."""
    has_goal = "plain_extra_mb" in found
    for prefix, kind in (("", "wall"), ("cpu_", "CPU")):
        share, difference, plain = (found.get(prefix + k) for k in ("share", "share_by_difference", "plain_share"))
        beside = f"; goal {GOAL_SHARE:.0%}); in plain PyTorch {plain:.1%}" if has_goal else ")"
        print(f"  of the step's {kind} time, distillation is {share:.1%} (by difference {difference:.1%}{beside}")
    if found["extra_mb"] is not None:
        beside = f" (goal {GOAL_MB} MB); plain PyTorch adds {found['plain_extra_mb']:.0f} MB" if has_goal else ""
        print(f"  it adds {found['extra_mb']:.0f} MB to the step's peak{beside}")


def main() -> None:
    serve_peak(CASES)
    cases = {"nargs": "+", "choices": list(STUDENTS), "default": list(PRESETS), "help": "see above"}
    benchmark = Benchmark(__doc__, repeats=5, options={"--case": cases})
    for case in benchmark.options.case:
        make = CASES[case](benchmark.device, benchmark.small)
        title = f"preset {case}" if case in PRESETS else f"logits of {case}"
        benchmark.run(f"step of {FRAMES} frames, {title}", make, agreement)
        rows = {row["contender"]: row for row in benchmark.rows[-len(make) :]}
        # Not of the distillation alone: its gradients of whole maps are the student's own in a step.
        note_peaks(CASES, case, [row for name, row in rows.items() if name != ALONE], benchmark)
        rows[OURS]["summary"] = summary(rows)
        print_summary(rows[OURS]["summary"])
    benchmark.finish()


if __name__ == "__main__":
    main()
