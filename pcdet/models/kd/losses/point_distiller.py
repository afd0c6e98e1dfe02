"""PointDistiller (arXiv 2205.11098): local graphs of the most important voxels or points, matched edge by edge.

Section 3 of the paper: importance, top-N sampling, a graph of K neighbours, a dynamic graph convolution on each side,
and a distance weighted by importance (equations 1 and 2). The defaults correct the released code: sampling, graphs and
weights stay within a frame, the target cannot collapse, weights have a mean of one and their temperature is in points.
The preset ``official`` reproduces that code, ``paper`` the text; docs/KD.md lists the differences.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pcdet.models.kd.adapters import ONTO_TEACHER, AdapterConfig, EdgeAdapter
from pcdet.models.kd.diagnostics import explained_variance, target_variance
from pcdet.models.kd.graph import NEAR_IN_SPACE, GraphConfig, LocalGraphs, build_graphs
from pcdet.models.kd.losses.base import KDLoss, check_same_rows, frame_mean, zero_of
from pcdet.models.kd.presets import POINT_DISTILLER
from pcdet.models.kd.sampling import (
    MOST_POINTS,
    ReweightConfig,
    SampleConfig,
    effective_sample_size,
    softmax_weights,
)
from pcdet.models.kd.schedule import CONSTANT, ScheduleConfig
from pcdet.models.kd.taps import head_taps
from pcdet.models.kd.view import Pair, RowImportance, View
from pcdet.ops.edge_conv import edge_sum_of_squares
from pcdet.registry import KD_LOSSES


@KD_LOSSES.register
class PointDistiller(KDLoss):
    """Matches local graph features at sampled voxels, points or BEV cells.

    Args:
        feature: tap: a batch_dict key (pillar_features, spatial_features_2d, point_features) or a module path.
        teacher_feature: the teacher's tap where it differs.
        preset: what the keys that are not given are: "default", "official" or "paper".
        weight: of the loss in the sum.
        schedule: of the weight over the epochs.
        sample: graph centres.
        graph: their neighbours.
        reweight: of the centres; None: all the same.
        adapter: descriptions of the edges.
        distance: "mse", weighted mean of squared differences; "norm", weighted mean over the centres of the Euclidean
            norm of all their differences (the paper's equation 2); "dist", one norm of all differences, unweighted
            (the released code without reweighting).
        pair: both detectors.
    """

    PRESETS = POINT_DISTILLER

    def __init__(
        self,
        *,
        feature: str,
        teacher_feature: str | None = None,
        preset: Literal["default", "official", "paper"] = "default",
        weight: float = 1.0,
        schedule: ScheduleConfig = CONSTANT,
        sample: SampleConfig = MOST_POINTS,
        graph: GraphConfig = NEAR_IN_SPACE,
        reweight: ReweightConfig | None = None,
        adapter: AdapterConfig = ONTO_TEACHER,
        distance: Literal["mse", "norm", "dist"] = "mse",
        pair: Pair,
    ):
        super().__init__(weight=weight, schedule=schedule)
        self.feature = feature
        self.teacher_feature = teacher_feature or feature
        self.sample, self.graph, self.reweight, self.distance = sample, graph, reweight, distance
        self.student_taps = (self.feature,)
        self.teacher_taps = (self.teacher_feature,)
        if sample.by == "score" or (reweight is not None and reweight.by == "score"):
            self.teacher_taps += head_taps(pair.teacher, "conv_cls")
        student_channels, teacher_channels = pair.channels(self.feature, self.teacher_feature)
        if adapter.teacher == "none":
            dim = 2 * teacher_channels
        else:
            dim = adapter.dim or (2 * student_channels if adapter.student == "none" else student_channels)
        self.teacher_adapter = EdgeAdapter(adapter.teacher, teacher_channels, dim, affine=adapter.affine)
        self.student_adapter = EdgeAdapter(adapter.student, student_channels, dim, affine=adapter.affine)
        # Kept in the checkpoint, so that a collapse is seen against the start of the training and not of the resume.
        self.register_buffer("initial_target_var", torch.tensor(-1.0))

    def forward(self, student: View, teacher: View, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs nodes, ess, target_var, target_var_ratio and, if asked, explained."""
        source, target = student.feature(self.feature), teacher.feature(self.teacher_feature)
        check_same_rows(self, source, target)
        num_frames = source.num_frames
        values = RowImportance(teacher, target)
        if not self.graph.per_frame:
            source, target = source.as_one_frame(), target.as_one_frame()
        graphs = build_graphs(target, values.of(self.sample.by), self.sample, self.graph)
        if len(graphs.centres) == 0:
            return zero_of(source), {"nodes": torch.zeros(())}
        source_rows, target_rows = source.take(graphs.base), target.take(graphs.base)
        if self._is_linear_regression:
            wanted = target_rows[graphs.centres]
            per_node = self._regression(source_rows, target_rows, graphs)
        else:
            wanted = self._describe(self.teacher_adapter, target_rows, graphs)
            per_node = self._distance(self._describe(self.student_adapter, source_rows, graphs), wanted, graphs.idx)
        weight = self._weights(values, wanted, graphs, num_frames)
        loss = per_node.sum() if self.distance == "dist" else frame_mean(per_node * weight, graphs.sizes)
        return loss, self._logs(wanted, weight, target_rows[graphs.centres], graphs, diagnose)

    @property
    def _is_linear_regression(self) -> bool:
        """Whether the student's linear map of an edge meets the teacher's edge itself, edge by edge, squared."""
        kinds = self.teacher_adapter.kind, self.student_adapter.kind
        weighs_edges = self.reweight is not None and self.reweight.by == "graph_max"
        return kinds == ("none", "linear") and self.graph.pool == "none" and self.distance == "mse" and not weighs_edges

    def _describe(self, adapter: EdgeAdapter, rows: Tensor, graphs: LocalGraphs) -> Tensor:
        """(G, K, C') or pooled (G, C')."""
        return adapter(rows, rows[graphs.centres], graphs.idx, edge=self.graph.edge, pool=self.graph.pool)

    def _regression(self, source: Tensor, target: Tensor, graphs: LocalGraphs) -> Tensor:
        """``_distance`` of the linear student adapter to the teacher's edges, without tensors of edges.

        The difference at an edge is a part of its neighbour plus a part of its centre, and the sum of such squares
        over a neighbourhood follows from sums over its rows.
        """
        conv, centres = self.student_adapter.conv, graphs.centres
        first, second = conv.weight.to(source.dtype).chunk(2, dim=1)
        nothing = torch.zeros_like(target)
        if self.graph.edge == "diff":  # [c - n; c]
            neighbour = -source @ first.T + torch.cat([target, nothing], dim=1)
            centre = source[centres] @ (first + second).T - torch.cat([target, target], dim=1)[centres]
        else:  # [n; c]
            neighbour = source @ first.T - torch.cat([target, nothing], dim=1)
            centre = source[centres] @ second.T - torch.cat([nothing, target], dim=1)[centres]
        edges = (graphs.idx >= 0).sum(dim=1).clamp(min=1)
        return edge_sum_of_squares(neighbour, centre + conv.bias, graphs.idx) / (edges * centre.shape[1])

    @torch.no_grad()
    def _weights(self, values: RowImportance, wanted: Tensor, graphs: LocalGraphs, num_frames: int) -> Tensor:
        """(G,) weight of every centre."""
        if self.reweight is None:
            return wanted.new_ones(len(wanted))
        if self.reweight.by == "batch_size":
            return wanted.new_full((len(wanted),), float(num_frames))
        if self.reweight.by == "graph_max":
            value = wanted.flatten(1).amax(dim=1)
        else:
            value = values.of(self.reweight.by)[graphs.rows]
        return softmax_weights(value.to(wanted.dtype), graphs.sizes, self.reweight.temperature)

    def _distance(self, given: Tensor, wanted: Tensor, idx: Tensor) -> Tensor:
        """(G,) distance of every centre, or (1,) of all for "dist"."""
        delta = given - wanted
        if self.distance == "dist":
            return torch.linalg.vector_norm(delta)[None]
        if self.distance == "norm":
            return torch.linalg.vector_norm(delta.flatten(1), dim=1)
        if delta.dim() == 2:
            return delta.square().mean(dim=1)
        return delta.square().mean(dim=2).sum(dim=1) / (idx >= 0).sum(dim=1).clamp(min=1)

    def _logs(
        self, wanted: Tensor, weight: Tensor, taught: Tensor, graphs: LocalGraphs, diagnose: bool
    ) -> dict[str, Tensor]:
        variance = target_variance(wanted)
        with torch.no_grad():
            self.initial_target_var.copy_(torch.where(self.initial_target_var < 0, variance, self.initial_target_var))
        logs = {
            "nodes": torch.tensor(len(weight) / max(1, sum(s > 0 for s in graphs.sizes))),
            "ess": effective_sample_size(weight, graphs.sizes),
            "target_var": variance,
            "target_var_ratio": variance / self.initial_target_var.clamp(min=1e-12),
        }
        if diagnose and self.teacher_adapter.kind != "none":
            pooled = wanted.mean(dim=1) if wanted.dim() == 3 else wanted
            logs["explained"] = explained_variance(pooled.detach(), taught)
        return logs
