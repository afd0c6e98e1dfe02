"""The neighbourhood of every graph centre, as index tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.graphs.sampling import SampleConfig, sample
from pcdet.ops.knn import knn


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Which neighbours a graph centre has, and what an edge holds.

    Attributes:
        k: neighbours, the centre itself among them.
        space: where they are near: the teacher's features, metres, or metres on the ground.
        candidates: only so many most important rows of a frame can be neighbours; None: all.
        edge: [neighbour; centre], or [centre - neighbour; centre]; "none": there is no graph, a centre's own row is
            compared, and ``k``, ``space``, ``candidates`` and ``pool`` have no effect.
        pool: over the neighbours; "none" compares edge by edge.
        per_frame: sample and connect within each frame; False mixes the frames of a batch, as the released code does.
    """

    k: int = 16
    space: Literal["feature", "xyz", "bev"] = "xyz"
    candidates: int | None = None
    edge: Literal["concat", "diff", "none"] = "concat"
    pool: Literal["none", "max", "mean"] = "none"
    per_frame: bool = True

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"K: must be at least 1, got {self.k}")
        if self.candidates is not None and self.candidates < 1:
            raise ValueError(f"CANDIDATES: must be at least 1 or null, got {self.candidates}")


NEAR_IN_SPACE = GraphConfig()


@dataclass(frozen=True, kw_only=True)
class LocalGraphs:
    """G graph centres and their K neighbours.

    Attributes:
        base: (V,) rows of the feature that can be neighbours, or None for all.
        centres: (G,) positions in ``base``, frame by frame.
        idx: (G, K) positions in ``base``, nearest first; -1 where a frame has fewer than K rows.
        sizes: centres in each frame.
    """

    base: Tensor | None
    centres: Tensor
    idx: Tensor
    sizes: list[int]

    @property
    def rows(self) -> Tensor:
        """(G,) the centres as rows of the feature."""
        return self.centres if self.base is None else self.base[self.centres]


@torch.no_grad()
def build_graphs(teacher: Feature, value: Tensor, sampling: SampleConfig, graph: GraphConfig) -> LocalGraphs:
    """Centres by importance and their neighbours.

    Args:
        teacher: the teacher's feature.
        value: (M,) importance of its rows.
        sampling: which rows are centres.
        graph: which neighbours they have.
    """
    frame_sizes = teacher.frame_sizes()
    centres, sizes = sample(value, frame_sizes, sampling.num, sampling.mode)
    if graph.edge == "none":
        own = torch.arange(len(centres), device=centres.device)
        return LocalGraphs(base=centres, centres=own, idx=own[:, None], sizes=sizes)
    base = None
    if graph.candidates is not None:
        base, centres = _candidates(value, frame_sizes, centres, graph.candidates)
    batch_idx = teacher.batch_idx if base is None else teacher.batch_idx[base]
    points = _coordinates(teacher, base, graph.space)
    idx = knn(points[centres], points, graph.k, batch_idx[centres], batch_idx)[1]
    return LocalGraphs(base=base, centres=centres, idx=idx, sizes=sizes)


def _candidates(value: Tensor, frame_sizes: list[int], centres: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Rows that can be neighbours, in order and with the centres among them; and the centres' positions there."""
    chosen = torch.zeros(len(value), dtype=torch.bool, device=value.device)
    chosen[sample(value, frame_sizes, num)[0]] = True
    chosen[centres] = True
    return chosen.nonzero().squeeze(1), chosen.cumsum(0)[centres] - 1


def _coordinates(feature: Feature, base: Tensor | None, space: str) -> Tensor:
    if space == "feature":
        return feature.take(base).detach()
    xyz = feature.xyz if base is None else feature.xyz[base]
    return xyz if space == "xyz" else xyz[:, :2].contiguous()
