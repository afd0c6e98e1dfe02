"""PointDistiller (arXiv 2205.11098): local graphs of the most important voxels or points, matched edge by edge.

Section 3 of the paper: importance, top-N sampling, a graph of K neighbours, a dynamic graph convolution on each side,
and a distance weighted by importance (equations 1 and 2). The defaults correct the released code: sampling, graphs and
weights stay within a frame, the target cannot collapse, weights have a mean of one and their temperature is in points.
The preset ``official`` reproduces that code, ``paper`` the text; docs/KD.md lists the differences.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pcdet.models.kd.diagnostics import explained_variance, target_variance
from pcdet.models.kd.features.matching import meet
from pcdet.models.kd.features.taps import head_taps
from pcdet.models.kd.graphs.adapters import ONTO_TEACHER, AdapterConfig, EdgeAdapter
from pcdet.models.kd.graphs.embedding import Description
from pcdet.models.kd.graphs.neighbours import NEAR_IN_SPACE, GraphConfig, LocalGraphs, build_graphs
from pcdet.models.kd.graphs.sampling import (
    MOST_POINTS,
    ReweightConfig,
    SampleConfig,
    effective_sample_size,
    softmax_weights,
)
from pcdet.models.kd.losses.base import KDLoss, frame_mean, zero_of
from pcdet.models.kd.model_outputs import Pair, RowImportance, View
from pcdet.models.kd.presets import POINT_DISTILLER
from pcdet.models.kd.schedule import CONSTANT, ScheduleConfig
from pcdet.ops.edge_conv import edge_graph
from pcdet.registry import KD_LOSSES

NO_VARIANCE = 1e-12  # a target that never varied has not lost anything


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
        feature: str | list[str],
        teacher_feature: str | list[str] | None = None,
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
        measures = (sample.by,) if reweight is None else (sample.by, reweight.by)
        if "score" in measures:
            self.teacher_taps += head_taps(pair.teacher, "conv_cls")
        student_channels, teacher_channels = pair.channels(self.feature, self.teacher_feature)
        pair.check_rows(self.feature, self.teacher_feature, *measures)
        if adapter.teacher == "none":
            dim = 2 * teacher_channels
        else:
            dim = adapter.dim or (2 * student_channels if adapter.student == "none" else student_channels)
        self.teacher_adapter = EdgeAdapter(adapter.teacher, teacher_channels, dim, affine=adapter.affine)
        self.student_adapter = EdgeAdapter(adapter.student, student_channels, dim, affine=adapter.affine)
        # Kept in the checkpoint, so that a collapse is seen against the start of the training and not of the resume.
        self.register_buffer("initial_target_var", torch.tensor(-1.0))

    def forward(self, student: View, teacher: View, *, diagnose: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs nodes, ess, target_var, target_var_ratio; if they apply, explained and matched."""
        taught = teacher.feature(self.teacher_feature)
        met = meet(student.feature(self.feature), taught)
        source, target, num_frames = met.student, met.teacher, taught.num_frames
        values = RowImportance(teacher, taught, met.teacher_rows)
        if not self.graph.per_frame:
            source, target = source.as_one_frame(), target.as_one_frame()
        graphs = build_graphs(target, values.of(self.sample.by), self.sample, self.graph)
        nothing = len(graphs.centres) == 0
        if nothing and not self._is_waited_for():
            return zero_of(source), {"nodes": torch.zeros(()), **met.logs}
        rows = source.take(graphs.base), target.take(graphs.base)
        graph = edge_graph(graphs.idx, len(rows[0]), gradients=torch.is_grad_enabled())
        given, wanted = (
            Description.of(adapter, x, graphs.centres, graph, edge=self.graph.edge, pool=self.graph.pool)
            for adapter, x in zip((self.student_adapter, self.teacher_adapter), rows, strict=True)
        )
        per_node = self._distance(given, wanted)
        weight = self._weights(values, wanted, graphs, per_node.dtype, num_frames)
        loss = per_node.sum() if self.distance == "dist" else frame_mean(per_node * weight, graphs.sizes)
        if nothing:
            return loss, {"nodes": torch.zeros(()), **met.logs}
        return loss, self._logs(wanted, weight, rows[1][graphs.centres], graphs, diagnose) | met.logs

    def _is_waited_for(self) -> bool:
        """Whether other processes wait for this one's part of a synchronised norm's statistics and their gradients."""
        return self.training and any(isinstance(module, nn.SyncBatchNorm) for module in self.modules())

    @torch.no_grad()
    def _weights(
        self, values: RowImportance, wanted: Description, graphs: LocalGraphs, dtype: torch.dtype, num_frames: int
    ) -> Tensor:
        """(G,) weight of every centre."""
        centres = graphs.centres
        if self.reweight is None:
            return centres.new_ones(len(centres), dtype=dtype)
        if self.reweight.by == "batch_size":
            return centres.new_full((len(centres),), float(num_frames), dtype=dtype)
        if self.reweight.by == "graph_max":
            value = wanted.largest()
        else:
            value = values.of(self.reweight.by)[graphs.rows]
        return softmax_weights(value.to(dtype), graphs.sizes, self.reweight.temperature)

    def _distance(self, given: Description, wanted: Description) -> Tensor:
        """(G,) distance of every centre, or (1,) of all for "dist"."""
        squares = given.squares(wanted)
        if self.distance == "mse":
            return squares / given.entries()
        squares = squares.sum()[None] if self.distance == "dist" else squares
        positive = squares > 0
        return torch.where(positive, squares, 1).sqrt() * positive  # the root's slope at 0 is taken for 0

    def _logs(
        self, wanted: Description, weight: Tensor, taught: Tensor, graphs: LocalGraphs, diagnose: bool
    ) -> dict[str, Tensor]:
        variance = target_variance(wanted.some_rows())
        with torch.no_grad():
            self.initial_target_var.copy_(torch.where(self.initial_target_var < 0, variance, self.initial_target_var))
        logs = {
            "nodes": torch.tensor(len(weight) / max(1, sum(s > 0 for s in graphs.sizes))),
            "ess": effective_sample_size(weight, graphs.sizes),
            "target_var": variance,
            "target_var_ratio": (variance + NO_VARIANCE) / (self.initial_target_var + NO_VARIANCE),
        }
        if diagnose and self.teacher_adapter.kind != "none":
            logs["explained"] = explained_variance(wanted.mean().detach(), taught)
        return logs
