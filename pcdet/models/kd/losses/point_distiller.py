"""PointDistiller (arXiv 2205.11098): local graphs of the most important voxels or points, matched edge by edge.

Section 3 of the paper: importance, top-N sampling, a graph of K neighbours, a dynamic graph convolution on each side,
and a distance weighted by importance (equations 1 and 2). The defaults correct the released code: sampling, graphs and
weights stay within a frame, the target cannot collapse, weights have a mean of one and their temperature is in points.
The preset ``official`` reproduces that code, ``paper`` the text; docs/KD.md lists the differences.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from pcdet.models.kd.diagnostics import explained_variance, target_variance
from pcdet.models.kd.features.matching import MatchedFeatures
from pcdet.models.kd.graphs.adapters import ONTO_TEACHER, AdapterConfig, EdgeAdapter
from pcdet.models.kd.graphs.embedding import EdgeEmbedding
from pcdet.models.kd.graphs.neighbours import NEAR_IN_SPACE, GraphConfig, LocalGraphs, build_graphs
from pcdet.models.kd.graphs.sampling import ReweightConfig, effective_sample_size, softmax_weights
from pcdet.models.kd.losses.base import frame_mean, rows_a_frame, zero_of
from pcdet.models.kd.losses.feature_loss import FeatureLoss, Importance
from pcdet.models.kd.model_outputs import ModelPair
from pcdet.models.kd.presets import POINT_DISTILLER
from pcdet.ops.edge_conv import edge_graph
from pcdet.registry import KD_LOSSES

NO_VARIANCE = 1e-12  # a target that never varied has not lost anything


@KD_LOSSES.register
class PointDistiller(FeatureLoss):
    """Distance between the local graphs of sampled voxels, points or BEV cells.

    Args:
        preset: what the keys that are not given are: "default", "official" or "paper".
        graph: neighbours of the graph centres, which are the rows that ``sample`` takes; its ``edge`` "none" leaves
            the local distillation out, as ``reweight`` None does the weights (the paper's ablation, table 5).
        reweight: of the centres; None: all the same.
        adapter: turns the edges of both sides into vectors of one width.
        distance: "mse", weighted mean of squared differences; "norm", weighted mean over the centres of the Euclidean
            norm of all their differences (the paper's equation 2); "dist", one norm of all differences, unweighted
            (the released code without reweighting).
        pair: both detectors.
        **common: see ``FeatureLoss``.
    """

    PRESETS = POINT_DISTILLER

    def __init__(
        self,
        *,
        preset: Literal["default", "official", "paper"] = "default",
        graph: GraphConfig = NEAR_IN_SPACE,
        reweight: ReweightConfig | None = None,
        adapter: AdapterConfig = ONTO_TEACHER,
        distance: Literal["mse", "norm", "dist"] = "mse",
        pair: ModelPair,
        **common: Any,
    ):
        super().__init__(pair=pair, **common)
        self.graph, self.reweight, self.distance = graph, reweight, distance
        if reweight is not None:
            self.read_importance(reweight.by, pair)
        width = adapter.out_channels(self.student_channels, self.teacher_channels, graph.edge)
        self.teacher_adapter, self.student_adapter = (
            EdgeAdapter(kind, channels, width, affine=adapter.affine, edge=graph.edge)
            for kind, channels in ((adapter.teacher, self.teacher_channels), (adapter.student, self.student_channels))
        )
        self.free_target = adapter.free_target()
        # Kept in the checkpoint, so that a collapse is seen against the start of the training and not of the resume.
        self.register_buffer("initial_target_var", torch.tensor(-1.0))

    def compare(
        self, matched: MatchedFeatures, importance: Importance, *, diagnose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class. Logs nodes, ess, target_var, target_var_ratio and, if it applies, explained."""
        student, teacher, num_frames = matched.student, matched.teacher, matched.teacher.num_frames
        if not self.graph.per_frame:
            student, teacher = student.as_one_frame(), teacher.as_one_frame()
        graphs = build_graphs(teacher, importance(self.sample.by), self.sample, self.graph)
        nothing = len(graphs.centres) == 0
        if nothing and not self.is_waited_for():
            return zero_of(student.source), {"nodes": rows_a_frame(graphs.sizes)}
        student_rows, teacher_rows = student.take(graphs.base), teacher.take(graphs.base)
        edges = edge_graph(graphs.idx, len(student_rows), gradients=torch.is_grad_enabled())
        embedding, target = (
            EdgeEmbedding.of(adapter, rows, graphs.centres, edges, pool=self.graph.pool)
            for adapter, rows in ((self.student_adapter, student_rows), (self.teacher_adapter, teacher_rows))
        )
        per_centre = self._distance(embedding, target)
        weight = self._weights(importance, target, graphs, per_centre.dtype, num_frames)
        loss = per_centre.sum() if self.distance == "dist" else frame_mean(per_centre * weight, graphs.sizes)
        if nothing:
            return loss, {"nodes": rows_a_frame(graphs.sizes)}
        return loss, self._logs(target, weight, teacher_rows[graphs.centres], graphs, diagnose)

    @torch.no_grad()
    def _weights(
        self, importance: Importance, target: EdgeEmbedding, graphs: LocalGraphs, dtype: torch.dtype, num_frames: int
    ) -> Tensor:
        """(G,) weight of every centre."""
        centres = graphs.centres
        if self.reweight is None:
            return centres.new_ones(len(centres), dtype=dtype)
        if self.reweight.by == "batch_size":
            return centres.new_full((len(centres),), float(num_frames), dtype=dtype)
        if self.reweight.by == "graph_max":
            value = target.largest()
        else:
            value = importance(self.reweight.by)[graphs.rows]
        return softmax_weights(value.to(dtype), graphs.sizes, self.reweight.temperature)

    def _distance(self, embedding: EdgeEmbedding, target: EdgeEmbedding) -> Tensor:
        """(G,) distance of every centre, or (1,) of all for "dist"."""
        squares = embedding.squared_distance(target)
        if self.distance == "mse":
            return squares / embedding.numel()
        squares = squares.sum()[None] if self.distance == "dist" else squares
        positive = squares > 0
        return torch.where(positive, squares, 1).sqrt() * positive  # the root's slope at 0 is taken for 0

    def _logs(
        self, target: EdgeEmbedding, weight: Tensor, teacher_rows: Tensor, graphs: LocalGraphs, diagnose: bool
    ) -> dict[str, Tensor]:
        """What to log of the centres, whose rows of the teacher's feature are ``teacher_rows``."""
        variance = target_variance(target.sample_rows())
        with torch.no_grad():
            self.initial_target_var.copy_(torch.where(self.initial_target_var < 0, variance, self.initial_target_var))
        logs = {
            "nodes": rows_a_frame(graphs.sizes),
            "ess": effective_sample_size(weight, graphs.sizes),
            "target_var": variance,
            "target_var_ratio": (variance + NO_VARIANCE) / (self.initial_target_var + NO_VARIANCE),
        }
        if diagnose and self.teacher_adapter.kind != "none":
            logs["explained"] = explained_variance(target.mean().detach(), teacher_rows)
        return logs
